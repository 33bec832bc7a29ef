"""Images taken out of a run again: their sums are subtracted, and classes of which nothing is left are forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwmfw.data.images import ImageSet
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.evaluate import digest, evaluate
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import fingerprint, only_readouts, sources_of
from lwmfw.engine.run import Run
from lwmfw.errors import RunFailed, UserError, shown
from lwmfw.record.results import StepResult
from lwmfw.using.extend import folder_table
from lwmfw.using.keep import recipe_from
from lwmfw.using.sums import State, arranged, check_exact, exact_parts, summed

_NESTED = {"nested": "take"}
"""Of a folder's table: its folders are classes by their names, which the run knows or not, whatever lies inside."""


@given_back()
def retracted(opened: OpenedRun, data: Path, device: DeviceName, tell: Callable[[str], None]) -> Run:
    """A run whose read-outs have never learned from images.

    Of a folder that the run was extended by, the part that was learned from is taken out, if every image is there; the
    result is exact. Of any other folder every image is taken out, on trust, and the result says that it is not exact.

    Raises:
        UserError: the run keeps exemplars or is not exact, or has learned from fewer images of a class.
    """
    check_exact(opened)
    if opened.recipe.recipe.memory:
        raise UserError(f"{opened.path}: keeps exemplars, which may be among the images; name a run without [memory]")
    sources = sources_of(opened)
    number, images = _learned(opened, sources, data)
    tell(f"{opened.path}: computing the features of {len(images)} images")
    left = [source for place, source in enumerate(sources) if place != number]
    left += [{"retracted": str(data.resolve())}] if number is None else []
    return _shortened(opened, _less(opened, summed(opened, images, device), data), left, exact=number is not None)


def _learned(opened: OpenedRun, sources: Sequence[Mapping[str, Any]], data: Path) -> tuple[int | None, ImageSet]:
    """Which source a folder is, and the images that were learned from; none: all images of the folder."""
    loaded: dict[str, ImageSet] = {}
    for number, source in enumerate(sources):
        if "images" not in source:
            continue
        table = source["data"] | {"root": str(data.resolve())}
        table |= ({"test": table["root"]} if table.get("test") else {}) | (_NESTED if "nested" in table else {})
        key = json.dumps([table, source["validation"], source["seed"]])
        if key not in loaded:
            loaded[key] = arranged(opened, table, source["validation"], source["seed"]).train
        if fingerprint(loaded[key], opened.class_names) == source["images"]:
            return number, loaded[key]
    # a folder that is its own test set is learned from whole
    return None, arranged(opened, folder_table(opened.checkpoint(), data, test=data) | _NESTED).train


def _less(opened: OpenedRun, taken: Mapping[str, State], data: Path) -> dict[str, State]:
    """What read-outs hold without what was taken."""
    _check_counts(opened, opened.checkpoint().components, taken)
    left: dict[str, State] = {}
    for name, part in exact_parts(opened.as_left()).items():
        try:
            part.method("add")(taken[name], range(len(opened.class_names)), -1)
        except RunFailed as error:  # what is left is no sum over images
            raise UserError(
                f"{data}: {name} cannot be solved without these images; name images that it has learned from, and all"
            ) from error
        left[name] = part.method("state")()
    return left


def _check_counts(opened: OpenedRun, kept: Mapping[str, State], taken: Mapping[str, State]) -> None:
    for readout, state in taken.items():
        counts = zip(opened.class_names, kept[readout]["counts"].tolist(), state["counts"].tolist(), strict=True)
        for name, there, less in counts:
            if less > there:
                raise UserError(
                    f"{opened.path}: has learned from {there:.0f} images of {shown(name)}, and {less:.0f} are to be "
                    "taken out; name images that it has learned from"
                )


def _shortened(opened: OpenedRun, states: Mapping[str, State], sources: list[dict[str, Any]], *, exact: bool) -> Run:
    """The run with other states of its read-outs, without the last steps of whose classes nothing is left."""
    there = torch.stack([state["counts"] > 0 for state in states.values()]).any(0)
    results = only_readouts(opened.results, list(states))
    steps = _left(results.steps, there)
    if not steps:
        raise UserError(f"{opened.path}: nothing would be left; delete the run")
    seen = steps[-1].seen
    order, names = results.classes_order[:seen], results.class_names[:seen]
    results = replace(results, steps=steps, classes_order=order, class_names=names, sources=sources, data=None)
    kept, shorter = opened.checkpoint(), opened.untrained(results).state_dict()
    rows = {name: kept.model[name][tuple(map(slice, value.shape))] for name, value in shorter.items()}
    kept = replace(kept, model=rows, results=results, components={})
    run = opened.as_left(kept=kept, recipe=recipe_from(opened, "retract"))
    places = [label if label < seen else None for label in range(len(there))]
    for name, part in exact_parts(run).items():
        part.method("add")(states[name], places, 1)
    held = {name: digest(part.method("state")()) for name, part in exact_parts(run).items()}
    *run.results.steps, last = run.results.steps
    if held != {name: each["statistics"] for name, each in last.readouts.items()}:
        last = evaluate(run, run.steps[-1], last.train_seconds, last.epochs)
    for said in last.readouts.values():
        said["exact"] = said["exact"] and exact
    run.results.steps.append(last)
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
