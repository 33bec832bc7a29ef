"""What a step has learned, measured in one pass over the test images of all seen classes.

cnn: the class of the largest logit. nme: the class whose exemplars' mean feature is nearest; exemplars are taken as the
memory holds them, and mirrored ones besides where training mirrors images (iCaRL, Rebuffi et al., CVPR 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lwmfw.engine.run import Run
from lwmfw.model.features import class_means, nearest_mean_scores
from lwmfw.model.growing import evaluating, model_bytes, parameter_count
from lwmfw.recipe.scenario import Step
from lwmfw.record.results import StepResult, accuracy


def evaluate(run: Run, step: Step, train_seconds: float) -> StepResult:
    """The result of a step: accuracies and confusion by classifier, and cost."""
    seen, model = step.seen_classes, run.model
    who = run.recipe.evaluation.classifiers
    confusion = {w: torch.zeros(len(seen) ** 2, dtype=torch.int64, device=run.device) for w in who}
    top5 = {w: torch.zeros((), dtype=torch.int64, device=run.device) for w in who}
    means = exemplar_means(run, len(seen)) if "nme" in who else torch.empty(0)
    images = run.data.test.of_classes(seen)
    with evaluating(model):
        for batch, labels in run.loader.evaluation_batches(images):
            new = model(batch)
            for w in who:
                scores = new.logits if w == "cnn" else nearest_mean_scores(new.features, means)
                best = scores.topk(min(5, len(seen))).indices
                confusion[w] += torch.bincount(labels * len(seen) + best[:, 0], minlength=len(confusion[w]))
                top5[w] += (best == labels[:, None]).sum()
    rows = {w: confusion[w].view(len(seen), len(seen)).tolist() for w in who}
    finished, order = run.steps[: step.index], run.results.classes_order
    return StepResult(
        step=step.index,
        new_classes=[order[c] for c in step.new_classes],
        seen=len(seen),
        accuracy={w: accuracy(rows[w], seen) for w in who},
        accuracy_top5={w: int(top5[w]) / len(images) for w in who},
        accuracy_by_step={w: [accuracy(rows[w], s.new_classes) for s in finished] for w in who},
        confusion={w: rows[w] for w in who},
        parameters=parameter_count(model),
        model_bytes=model_bytes(model),
        exemplars=len(run.memory.exemplars) if run.memory else 0,
        memory_bytes=run.memory.bytes if run.memory else 0,
        train_seconds=round(train_seconds, 3),
    )


def exemplar_means(run: Run, classes: int) -> Tensor:
    """Each class's mean over its exemplars, (classes, D), of length 1."""
    assert run.memory is not None, "checked when the recipe is read"  # noqa: S101
    exemplars = run.memory.images()
    views = [run.features(exemplars)] + ([run.features(exemplars, mirrored=True)] if run.loader.flip else [])
    return class_means(torch.cat(views), exemplars.labels.repeat(len(views)), classes)
