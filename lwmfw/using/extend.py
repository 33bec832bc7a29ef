"""Adding classes to a finished run: the recipe of a run that goes on from it, on a folder of new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import place, preprocessing_of, sources_of
from lwmfw.errors import UserError, command
from lwmfw.recipe.load import Resolved, override
from lwmfw.recipe.places import without_weights
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint


@dataclass(frozen=True)
class Extension:
    """What a run is extended by.

    Attributes:
        data: folder of class folders.
        test: folder of class folders for testing, of known classes too; None: a share of the new images is held out.
        held_out: that share.
        more: whether images may be of known classes.
        train: whether the recipe's training goes on; else read-outs from sums take the images in, and no more.
        settings: of the recipe, as with `--set`; they come last.
    """

    data: Path
    test: Path | None = None
    held_out: float = 0.2
    more: bool = False
    train: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def extended(opened: OpenedRun, wanted: Extension) -> Resolved:
    """The recipe of a run that goes on from a finished one.

    Raises:
        UserError: the run is not finished, or none of its read-outs can learn a class in this way.
    """
    given = opened.recipe
    if not opened.finished:
        raise UserError(f"{opened.path}: has not ended; {command('resume', opened.path)} goes on with it")
    if wanted.more and wanted.train:
        raise UserError("--more takes images in without training; leave --train or --more out")
    root = str(wanted.data.resolve())
    if wanted.more and any(root == place(each) for each in sources_of(opened)):
        raise UserError(
            f"--data: {opened.path} has learned from {root} already; put new images into a folder of their own"
        )
    kept = opened.checkpoint()
    settings = {
        "origin": {"run": str(opened.path.resolve()), "checkpoint": checkpoint.digest(kept.path), "more": wanted.more},
        "data": folder_table(kept, wanted.data, wanted.test, wanted.held_out),
        "scenario": {"first": 0, "order": "given"},
        "evaluation.validation": 0.0,
        "training.precision": "bf16" if kept.facts["arithmetic"].startswith("bf16") else "fp32",
        **without_weights(given),
        **(_trained(opened) if wanted.train else _as_it_is(opened)),
    }
    return override(given, settings, wanted.settings)


def folder_table(kept: Checkpoint, root: Path, test: Path | None = None, held_out: float = 0.2) -> dict[str, Any]:
    """The [data] of a folder whose images come as the model of a checkpoint has learned to see them."""
    shape = preprocessing_of(kept)
    table = {
        "use": "folder",
        "root": str(root.resolve()),
        "size": shape.size,
        "decode": "each epoch" if shape.resize else "once",
        "channels": shape.channels,
        "mean": shape.mean,
        "std": shape.std,
        "background": shape.background,
        "values": shape.values,
        "max_pixels": shape.max_pixels,
        "test_share": held_out,
    }
    return table | ({"test": str(test.resolve())} if test else {})


def _as_it_is(opened: OpenedRun) -> dict[str, object]:
    """Settings by which nothing is trained."""
    tables = opened.assembly.readouts()
    kept = [table for table, exact in tables if exact]
    if not kept:
        names = ", ".join(table["as"] for table, _ in tables)
        raise UserError(
            f"{opened.path}: keeps no sums of the classes it knows, and its read-outs ({names}) learn by training "
            "alone; extend it with --train, or adopt its weights with --data FOLDER of some images a class"
        )
    return {"penalties": [], "phases": [], "readouts": kept, "training.epochs": 0}


def _trained(opened: OpenedRun) -> dict[str, object]:
    """Settings by which training goes on as the recipe has it, and sums are carried over."""
    recipe = opened.recipe.recipe
    made_by = recipe.origin.made_by if recipe.origin else "adopt"
    if made_by == "merge" or (made_by != "adopt" and not recipe.training.epochs):
        raise UserError(
            f"{opened.path}: its classifier was not trained on all of its classes; extend it without --train, or "
            "the run that was trained last with it"
        )
    tables = [table for table, _ in opened.assembly.readouts()]
    return {"readouts": [table | ({"transport": True} if "transport" in table else {}) for table in tables]}
