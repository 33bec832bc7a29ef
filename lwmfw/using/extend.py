"""Adding classes to a finished run: the recipe of a run that goes on from it, on a folder of new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import preprocessing_of
from lwmfw.engine.run import Run
from lwmfw.errors import UserError
from lwmfw.recipe.load import Resolved, override
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
        raise UserError(f"{opened.path}: has not ended; `lwmfw resume {opened.path}` goes on with it")
    kept = opened.checkpoint()
    settings = {
        "origin": {"run": str(opened.path), "checkpoint": checkpoint.digest(kept.path), "more": wanted.more},
        "data": folder_table(kept, wanted),
        "scenario": {"first": 0, "order": "given"},
        "training.precision": "bf16" if kept.facts["arithmetic"].startswith("bf16") else "fp32",
        **without_weights(given),
        **(_trained(opened, wanted) if wanted.train else _as_it_is(opened)),
    }
    return override(given, settings | dict(wanted.settings))


def folder_table(kept: Checkpoint, wanted: Extension) -> dict[str, Any]:
    """The [data] of a folder whose images come as the model of a checkpoint has learned to see them."""
    shape = preprocessing_of(kept)
    table = {
        "use": "folder",
        "root": str(wanted.data),
        "size": shape.size,
        "decode": "each epoch" if shape.resize else "once",
        "channels": shape.channels,
        "mean": shape.mean,
        "std": shape.std,
        "test_share": wanted.held_out,
    }
    return table | ({"test": str(wanted.test)} if wanted.test else {})


def without_weights(given: Resolved) -> dict[str, object]:
    """Settings by which a backbone reads no initial weights: the checkpoint has every weight."""
    return {"backbone.weights": ""} if given.tables()["backbone"].get("weights") else {}


def _as_it_is(opened: OpenedRun) -> dict[str, object]:
    """Settings by which nothing is trained."""
    kept = [table for table, exact in _readouts(opened) if exact]
    if not kept:
        names = ", ".join(table["as"] for table, _ in _readouts(opened))
        raise UserError(
            f"{opened.path}: keeps no sums of the classes it knows, and its read-outs ({names}) learn by training "
            "alone; extend it with --train, or adopt its weights with --data FOLDER of some images a class"
        )
    return {"penalties": [], "phases": [], "readouts": kept, "training.epochs": 0}


def _trained(opened: OpenedRun, wanted: Extension) -> dict[str, object]:
    """Settings by which training goes on as the recipe has it, and sums are carried over."""
    if wanted.more:
        raise UserError("--more takes images in without training; leave --train or --more out")
    if opened.recipe.recipe.origin and not opened.recipe.recipe.training.epochs:
        raise UserError(
            f"{opened.path}: its classifier was not trained on the classes that were added; extend {opened.path} "
            f"without --train, or {opened.recipe.recipe.origin.run} with it"
        )
    return {
        "readouts": [table | ({"transport": True} if "transport" in table else {}) for table, _ in _readouts(opened)]
    }


def _readouts(opened: OpenedRun) -> list[tuple[dict[str, Any], bool]]:
    """The read-outs' tables, and whether each is made of sums over images."""
    parts = opened.assembly.of_kind("readout").values()
    return list(zip(opened.recipe.tables()["readouts"], (part.trait("exact") for part in parts), strict=True))


def told(run: Run, seconds: float) -> dict[str, Any]:
    """What a run came to in its last step: accuracy by class, certificates, and where it is."""
    result, names = run.results.steps[-1], run.results.class_names
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        found = {who: matrix[place] for who, matrix in result.confusion.items()}
        images = sum(next(iter(found.values())))
        right = {who: row[place] / images if images else None for who, row in found.items()}
        new = place >= result.seen - len(result.new_classes)
        rows.append({"class": name, "": "new" if new else "", "test images": images, **right})
    tested = sum(map(sum, next(iter(result.confusion.values()))))
    whole = {"class": "all", "": "", "test images": tested, **result.accuracy}
    return {
        "run": str(run.directory.path) if run.directory else "",
        "seconds": round(seconds, 2),
        "accuracy": result.accuracy,
        "readouts": result.readouts,
        "readout_bytes": result.readout_bytes,
        "by_class": [*rows, whole],
    }


def lines(said: Mapping[str, Any]) -> list[str]:
    """The same in words, but for the accuracies."""
    found = []
    for name, each in said["readouts"].items():
        size = said["readout_bytes"][name]
        if each["exact"]:
            worth = "exact, as if all images had been there at once"
        else:
            worth = f"carried over, drift {each['drift']:.3f}" if "drift" in each else "of features that are gone"
        found.append(f"{name}: {worth}; statistics {each['statistics'][:16]}, {size / 1e6:.2f} MB")
    return [*found, f"{said['run']}: {said['seconds']:.1f} s"]
