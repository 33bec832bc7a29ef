"""Read-outs from sums, computed anew: what a backbone and all images at once would have given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.calls import Attached
from lwmfw.data.arrange import arrange, together
from lwmfw.data.images import DataSet, ImageSet
from lwmfw.engine.build import DeviceName
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import check_alike, labels_in, place, sources_of
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import UserError, command, shown
from lwmfw.recipe.load import override
from lwmfw.recipe.scenario import Step

_BY_A_SETTING = re.compile(r", or [^,;]* with data\.\w+ = \S+$")
"""What a recipe can do besides about images: those who come with images of a run have no recipe to set it in."""

State = Mapping[str, Any]


def exact_parts(run: Run) -> dict[str, Attached]:
    """The read-outs that are made of sums over images, by name."""
    return {name: part for name, part in run.assembly.of_kind("readout").items() if part.trait("exact")}


def check_exact(opened: OpenedRun) -> None:
    """See that the sums of a run are of its backbone's features, every one.

    Raises:
        UserError: it has none, or the backbone has moved since the first was taken.
    """
    if opened.exists and not opened.finished:
        raise UserError(f"{opened.path}: has not ended; {command('resume', opened.path)} goes on with it")
    last = opened.results.steps[-1].readouts
    said = {name: each["exact"] for name, each in last.items() if "exact" in each}  # som has a state, and no sums
    if not said:
        raise UserError(f"{opened.path}: has no read-out from sums; name a run with one, such as ridge")
    moved = [name for name, exact in said.items() if not exact]
    if moved:
        raise UserError(
            f"{opened.path}: the sums of {moved[0]} are not exact: the backbone was trained after they were begun, "
            "they lack the first classes, or images were taken out on trust; name a run whose read-outs are exact"
        )


def learned_images(opened: OpenedRun, data: Sequence[Path]) -> ImageSet:
    """All training images that a run and those before it have learned from.

    Args:
        opened: the run.
        data: where they are now, oldest first; empty: where they were.

    Raises:
        UserError: another number of places, or images that are missing or not alike.
    """
    sources = sources_of(opened)
    named = [source for source in sources if "root" in source["data"]]
    if data and len(data) != len(named):
        places = ", ".join(place(source) or source["data"]["use"] for source in named)
        raise UserError(
            f"{opened.path}: has learned from {len(named)} places, oldest first: {places}; "
            "name as many with --data, or none"
        )
    now = iter(data)
    parts = []
    for source in sources:
        table = source["data"] | ({"root": str(next(now))} if data and "root" in source["data"] else {})
        parts.append(arranged(opened, table, source["validation"], source["seed"]).train)
    return together(parts)


def arranged(opened: OpenedRun, table: Mapping[str, Any], validation: float = 0.0, seed: int = 0) -> DataSet:
    """The images of a [data] table, of classes that a run knows and in its class order.

    Raises:
        UserError: they are missing, of none of its classes, or not alike.
    """
    assembly = assemble(override(opened.recipe, {"data": dict(table)}))
    try:
        with told_in_words(assembly, opened.path):
            loaded: DataSet = assembly.method("data", "load")()
    except UserError as error:
        raise UserError(_BY_A_SETTING.sub("", str(error))) from error
    check_alike(loaded, opened.checkpoint(), own_range=True)  # which they had when they were learned from
    order = labels_in(loaded, opened.class_names)
    if not any(label is not None for label in order):
        names = shown(", ".join(loaded.class_names), 200)
        raise UserError(f"data: none of its classes ({names}) is one that {opened.path} knows; name other folders")
    return arrange(loaded, order, validation, seed, len(order))


def summed(opened: OpenedRun, images: ImageSet, device: DeviceName) -> dict[str, State]:
    """What each read-out from sums holds of some images and no others, for the backbone of a run."""
    run = opened.as_left(device, replace(opened.checkpoint(), components={}))
    parts, classes, images = exact_parts(run), range(run.model.classes), images.to(run.device)
    with run.sharing_features(), told_in_words(run.assembly, opened.path):
        for part in parts.values():
            offered = {"run": run, "step": Step(1, classes, classes, 1), "model": run.model, "old": None}
            part.hook("after_training")(*{**offered, "data": images, "rng": run.rng}.values())
    return {name: part.method("state")() for name, part in parts.items()}


def difference(kept: State, found: State) -> float:
    """The largest difference of two states, in units of the largest value; infinite where their shapes differ."""
    largest = 0.0
    for name, value in kept.items():
        if isinstance(value, Tensor):
            other, unit = found[name], value.abs().max().clamp(min=1)
            alike = value.shape == other.shape
            largest = max(largest, float((value - other).abs().max() / unit) if alike else float("inf"))
    return largest
