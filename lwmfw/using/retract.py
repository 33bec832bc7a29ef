"""Images taken out of a run again: their sums are subtracted, and classes of which nothing is left are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwmfw.engine.build import DeviceName
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import sources_of
from lwmfw.engine.run import Run
from lwmfw.errors import UserError, shown
from lwmfw.record.results import StepResult
from lwmfw.using.extend import Extension, folder_table
from lwmfw.using.sums import State, arranged, check_exact, exact_parts, summed


def retracted(opened: OpenedRun, data: Path, device: DeviceName, tell: Callable[[str], None]) -> Run:
    """A run as if images had never been learned from.

    A folder that the run was extended by loses the part that was learned from, the held-out one never was; of any other
    folder every image is taken out.

    Raises:
        UserError: the run keeps exemplars or is not exact, or has learned from fewer images of a class.
    """
    check_exact(opened)
    if opened.recipe.recipe.memory:
        raise UserError(
            f"{opened.path}: keeps exemplars, which may be among the images; retract from a run without [memory]"
        )
    sources = sources_of(opened)
    known = next((source for source in sources if source["data"].get("root") == str(data.absolute())), None)
    images = arranged(opened, known["data"], known["validation"], known["seed"]).train if known else _all(opened, data)
    tell(f"{opened.path}: computing the features of {len(images)} images")
    states = {}
    for name, more in summed(opened, images, device).items():
        part = exact_parts(opened.as_left())[name]
        part.method("add")(more, range(len(opened.class_names)), -1)
        states[name] = part.method("state")()
        _check_counts(states[name]["counts"], more["counts"], opened)
    left = [source for source in sources if source is not known] if known else [*sources, {"retracted": str(data)}]
    return _with(opened, states, left)


def _all(opened: OpenedRun, data: Path) -> Any:
    """Every image of a folder, in class order."""
    table = folder_table(opened.checkpoint(), Extension(data)) | {"test": str(data)}
    return arranged(opened, table).train


def _check_counts(left: Tensor, taken: Tensor, opened: OpenedRun) -> None:
    for name, count, less in zip(opened.class_names, left.tolist(), taken.tolist(), strict=True):
        if count < 0:
            raise UserError(
                f"{opened.path}: has learned from {count + less:.0f} images of {shown(name)}, and {less:.0f} are to be "
                "taken out; name images that it has learned from"
            )


def _with(opened: OpenedRun, states: Mapping[str, State], sources: list[dict[str, Any]]) -> Run:
    """The run with other states of its read-outs, without the last steps of whose classes nothing is left."""
    there = torch.stack([state["counts"] > 0 for state in states.values()]).any(0)
    steps = _left(opened.results.steps, there)
    if not steps:
        raise UserError(f"{opened.path}: nothing would be left; delete the run")
    seen, results = steps[-1].seen, opened.results
    order, names = results.classes_order[:seen], results.class_names[:seen]
    results = replace(results, steps=steps, classes_order=order, class_names=names, sources=sources)
    kept, shorter = opened.checkpoint(), opened.untrained(seen).state_dict()
    rows = {name: kept.model[name][tuple(map(slice, value.shape))] for name, value in shorter.items()}
    run = opened.as_left(kept=replace(kept, model=rows, results=results, components={}))
    places = [place if place < seen else None for place in range(len(there))]
    for name, part in exact_parts(run).items():
        part.method("add")(states[name], places, 1)
    return run


def _left(steps: Sequence[StepResult], there: Tensor) -> list[StepResult]:
    """Steps without the last ones of whose classes none is there any more."""
    left = list(steps)
    while left:
        before = left[-2].seen if len(left) > 1 else 0
        if before == left[-1].seen or there[before : left[-1].seen].any():
            break
        left.pop()
    return left
