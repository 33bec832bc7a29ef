"""What a step has learned, measured in one pass over the test images of all seen classes."""

from __future__ import annotations

import torch

from lwmfw.metrics import StepResult, accuracy
from lwmfw.model import evaluating, model_bytes, parameter_count
from lwmfw.scenario import Step
from lwmfw.state import Run


def evaluate(run: Run, step: Step, train_seconds: float) -> StepResult:
    """The result of a step: accuracies, confusion and cost."""
    seen, model = step.seen_classes, run.model
    confusion = torch.zeros(len(seen) ** 2, dtype=torch.int64, device=run.device)
    top5 = torch.zeros((), dtype=torch.int64, device=run.device)
    images = run.data.test.of_classes(seen)
    with evaluating(model):
        for batch, labels in run.loader.evaluation_batches(images):
            best = model(batch).logits.topk(min(5, len(seen))).indices
            confusion += torch.bincount(labels * len(seen) + best[:, 0], minlength=len(confusion))
            top5 += (best == labels[:, None]).sum()
    rows = confusion.view(len(seen), len(seen)).tolist()
    finished, order = run.steps[: step.index], run.results.classes_order
    return StepResult(
        step=step.index,
        new_classes=[order[c] for c in step.new_classes],
        seen=len(seen),
        accuracy={"cnn": accuracy(rows, seen)},
        accuracy_top5={"cnn": int(top5) / len(images)},
        accuracy_by_step={"cnn": [accuracy(rows, s.new_classes) for s in finished]},
        confusion={"cnn": rows},
        parameters=parameter_count(model),
        model_bytes=model_bytes(model),
        exemplars=len(run.memory.images) if run.memory else 0,
        memory_bytes=run.memory.bytes if run.memory else 0,
        train_seconds=round(train_seconds, 3),
    )
