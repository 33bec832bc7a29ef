"""What a step has learned, measured in one pass over the test images of all seen classes, by every read-out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lwmfw.assembly.calls import Attached
from lwmfw.data.images import ImageSet
from lwmfw.engine.run import Run
from lwmfw.errors import LOWER, NotFinite
from lwmfw.model.features import feature_batches
from lwmfw.model.growing import evaluating, model_bytes, parameter_count
from lwmfw.recipe.scenario import Step
from lwmfw.record.results import StepResult, accuracy


def evaluate(
    run: Run, step: Step, train_seconds: float, epochs: int, part_seconds: Mapping[str, float] = {}
) -> StepResult:
    """The result of a step: accuracies and confusion by read-out, and cost."""
    began = time.monotonic()
    seen, model, readouts = step.seen_classes, run.model, run.assembly.of_kind("readout")
    images = run.data.test.of_classes(seen)
    confusion, top5, aware = _counts(run, step, readouts, images)
    rows = {name: confusion[name].view(len(seen), len(seen)).tolist() for name in readouts}
    finished, order = run.steps[: step.index], run.results.classes_order
    tested = len(images.labels.unique()) == len(seen)
    states = {name: _state(part) for name, part in readouts.items()}
    return StepResult(
        step=step.index,
        new_classes=[order[c] for c in step.new_classes],
        seen=len(seen),
        accuracy={w: accuracy(rows[w], seen) for w in readouts},
        accuracy_top5={w: top5[w] / len(images) if tested else None for w in readouts},
        accuracy_task_aware={w: aware[w] / len(images) if tested else None for w in readouts},
        accuracy_by_step={w: [accuracy(rows[w], s.new_classes) for s in finished] for w in readouts},
        confusion=rows,
        parameters=parameter_count(model),
        model_bytes=model_bytes(model),
        exemplars=len(run.memory.exemplars) if run.memory else 0,
        memory_bytes=run.memory.bytes if run.memory else 0,
        train_seconds=round(train_seconds, 3),
        epochs=epochs,
        readout_bytes={name: _bytes(state) for name, state in states.items()},
        readouts=_certificates(run, readouts, states),
        part_seconds=_rounded(part_seconds, time.monotonic() - began) if part_seconds else {},
    )


def _rounded(seconds: Mapping[str, float], evaluating: float) -> dict[str, float]:
    whole = {**seconds, "evaluation": seconds.get("evaluation", 0.0) + evaluating}
    return {part: round(value, 3) for part, value in whole.items()}


def _counts(
    run: Run, step: Step, readouts: Mapping[str, Attached], images: ImageSet
) -> tuple[dict[str, Tensor], dict[str, int], dict[str, int]]:
    """Confusion (seen * seen,), right answers among the best five, and right answers where the choice is among the
    classes of the image's own step, by read-out.

    Raises:
        NotFinite: a feature or a best score is not; a score of -inf says that nothing is known of a class.
    """
    seen, scores = len(step.seen_classes), {name: part.method("scores") for name, part in readouts.items()}
    confusion = {w: torch.zeros(seen**2, dtype=torch.int64, device=run.device) for w in readouts}
    top5, aware = ({w: torch.zeros((), dtype=torch.int64, device=run.device) for w in readouts} for _ in range(2))
    unknown = {w: torch.zeros((), dtype=torch.int64, device=run.device) for w in ("", *readouts)}
    steps = run.steps[: step.index]
    step_of = torch.tensor([s.index for s in steps for _ in s.new_classes], device=run.device)
    with evaluating(run.model):
        batches = run.loader.evaluation_batches(images) if len(images) else ()
        for features, labels in feature_batches(run.model, batches, run.loader.evaluation_size(images)):
            unknown[""] += (~features.isfinite()).any(1).sum()
            elsewhere = step_of[labels][:, None] != step_of
            for name, part in readouts.items():
                found = scores[name](features)
                if found.shape[1] != seen:
                    what = f"returned scores of {found.shape[1]} classes; {seen} are seen, return one for each"
                    raise part.failure(f"{part.provider}: {name}.scores {what}")
                highest, best = found.topk(min(5, seen))
                unknown[name] += (~(highest[:, 0] < torch.inf)).sum()  # nan is the highest of all
                confusion[name].index_add_(0, labels * seen + best[:, 0], torch.ones_like(labels))
                top5[name] += (best == labels[:, None]).sum()
                aware[name] += (found.masked_fill(elsewhere, -torch.inf).argmax(1) == labels).sum()
    _refuse_not_finite(run, readouts, unknown, len(images))
    right, told = ({name: int(count) for name, count in counts.items()} for counts in (top5, aware))
    return confusion, right, told


def _refuse_not_finite(run: Run, readouts: Mapping[str, Attached], unknown: Mapping[str, Tensor], images: int) -> None:
    """See that features, which are counted under an empty name, and every read-out's scores are finite."""
    counts = torch.stack(list(unknown.values())).tolist()  # one wait for the device, whatever has to be told
    for name, count in zip(unknown, counts, strict=True):
        if count:
            what, do = (f"{readouts[name].provider}: {name}.scores", "mend it, or ") if name else ("features", "")
            told = f"{what} of {count} of {images} test images are not finite; the run stopped {run.position}"
            raise NotFinite(f"{told}; {do}{LOWER}")


def _state(part: Attached) -> dict[str, Any]:
    state: dict[str, Any] = part.method("state")() if part.trait("state") else {}
    return state


def _bytes(state: Mapping[str, Any]) -> int:
    return sum(v.numel() * v.element_size() for v in state.values() if isinstance(v, Tensor))


def _certificates(
    run: Run, readouts: Mapping[str, Attached], states: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Of read-outs with a state: digests of it and of the backbone, and its plain values; of sums also whether they are
    what learning all at once would give."""
    fitted = [name for name, state in states.items() if state]
    backbone = digest(run.model.backbone.state_dict()) if fitted else ""
    before = run.results.steps[-1].readouts if run.results.steps else None
    alike = run.origin is None or run.origin.facts["arithmetic"] == run.arithmetic
    found = {}
    for name in fitted:
        plain = {key: value for key, value in states[name].items() if not isinstance(value, Tensor)}
        said: dict[str, Any] = {"statistics": digest(states[name]), "backbone": backbone}
        if readouts[name].trait("exact"):
            earlier = None if before is None else before.get(name, {"exact": False})
            same = earlier is None or (earlier["exact"] and earlier["backbone"] == backbone)
            said = {"exact": alike and same} | said
        found[name] = said | plain
    return found


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of tensors by name, whatever the order and wherever they are; other values are left out."""
    hashed = hashlib.sha256()
    for name in sorted(name for name, value in values.items() if isinstance(value, Tensor)):
        value = values[name].detach().cpu().contiguous()
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hashed.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
