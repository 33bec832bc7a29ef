"""Images taken out of a run again: their sums are subtracted, and classes of which nothing is left are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwmfw.data.images import ImageSet
from lwmfw.engine.build import DeviceName
from lwmfw.engine.evaluate import digest, evaluate
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import only_readouts, place, sources_of
from lwmfw.engine.run import Run
from lwmfw.errors import RunFailed, UserError, one_line, shown
from lwmfw.record.results import StepResult
from lwmfw.using.extend import folder_table
from lwmfw.using.sums import State, arranged, check_exact, exact_parts, summed


def retracted(opened: OpenedRun, data: Path, device: DeviceName, tell: Callable[[str], None]) -> Run:
    """A run whose read-outs have never learned from images.

    The folder that it was last extended by loses the part that was learned from, and what is left is held against the
    digests of the run before: it is exact. Of any other folder every image is taken out, on trust, and the result says
    that it is not exact.

    Raises:
        UserError: the run keeps exemplars or is not exact, or has learned from fewer or from other images.
    """
    check_exact(opened)
    if opened.recipe.recipe.memory:
        raise UserError(f"{opened.path}: keeps exemplars, which may be among the images; name a run without [memory]")
    *earlier, last = sources_of(opened)
    undone = bool(earlier) and place(last) == str(data.resolve())
    images = arranged(opened, last["data"], last["validation"], last["seed"]).train if undone else _all(opened, data)
    tell(f"{opened.path}: computing the features of {len(images)} images")
    kept, taken = opened.checkpoint().components, summed(opened, images, device)
    _check_counts(opened, kept, taken)
    run = opened.as_left()
    for name, part in exact_parts(run).items():
        try:
            part.method("add")(taken[name], range(len(opened.class_names)), -1)
        except RunFailed as error:  # what is left is no sum over images
            raise UserError(
                f"{data}: {name} cannot be solved without these images ({one_line(error)}); name images that it has "
                "learned from, all of them"
            ) from error
    left = _shortened(
        opened, _states(run), earlier if undone else [*earlier, last, {"retracted": str(data.resolve())}], exact=undone
    )
    before = earlier[-1]["statistics"] if undone else {}
    if any(before.get(name, found) != found for name, found in _digests(left).items()):
        raise UserError(
            f"{data}: holds other images than {opened.path} has learned from, so that they cannot be taken out "
            "exactly; put back what was there"
        )
    return left


def _states(run: Run) -> dict[str, State]:
    return {name: part.method("state")() for name, part in exact_parts(run).items()}


def _digests(run: Run) -> dict[str, str]:
    return {name: digest(state) for name, state in _states(run).items()}


def _all(opened: OpenedRun, data: Path) -> ImageSet:
    """Every image of a folder, in class order: it is its own test set, so that none is held out."""
    return arranged(opened, folder_table(opened.checkpoint(), data, test=data)).train


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
    results = replace(results, steps=steps, classes_order=order, class_names=names, sources=sources)
    kept, shorter = opened.checkpoint(), opened.untrained(results).state_dict()
    rows = {name: kept.model[name][tuple(map(slice, value.shape))] for name, value in shorter.items()}
    run = opened.as_left(kept=replace(kept, model=rows, results=results, components={}))
    places = [label if label < seen else None for label in range(len(there))]
    for name, part in exact_parts(run).items():
        part.method("add")(states[name], places, 1)
    if _digests(run) != {name: each["statistics"] for name, each in steps[-1].readouts.items()}:
        *run.results.steps, last = run.results.steps
        again = evaluate(run, run.steps[-1], last.train_seconds)
        for said in again.readouts.values():
            said["exact"] = said["exact"] and exact
        run.results.steps.append(again)
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
