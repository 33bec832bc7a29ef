"""Going on from a finished run: its classes come first, and those that new data bring behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unicodedata import normalize

from lwmfw.data.images import DataSet, ImageFiles, ImageSet
from lwmfw.data.loader import Preprocessing
from lwmfw.errors import CheckpointRefused, UserError, command, shown
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.scenario import Step
from lwmfw.recipe.tables import Origin
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results


def origin_of(table: Origin) -> Checkpoint:
    """What the finished run that a recipe goes on from has left.

    Raises:
        UserError: there is none, or its last checkpoint is another than the recipe names.
        CheckpointRefused: it is damaged.
    """
    if table.made_by:
        raise UserError(f"origin.made_by: {command(table.made_by)} has made this run, and alone can make it again")
    recorded = RecordedRun(table.run)
    if not recorded.finished:
        raise UserError(
            f"origin.run: {shown(table.run, 1000)} holds no finished run; put the one back that this goes on from"
        )
    _ = recorded.results  # that they were changed is found here
    kept = recorded.checkpoint()
    if checkpoint.digest(kept.path) != table.checkpoint:
        raise UserError(f"origin.checkpoint: {kept.path} is another checkpoint than the recipe names; restore that one")
    return kept


def preprocessing_of(kept: Checkpoint) -> Preprocessing:
    """What an image has to go through before the model of a checkpoint sees it.

    Raises:
        CheckpointRefused: the checkpoint is of another version.
    """
    try:
        return Preprocessing(**kept.facts["preprocessing"])
    except (KeyError, TypeError) as error:
        raise CheckpointRefused(f"{kept.path}: says nothing of preprocessing; train the run anew") from error


def check_alike(data: DataSet, kept: Checkpoint, *, own_range: bool) -> None:
    """See that images come as the model of the origin has learned to see them.

    Args:
        data: as loaded.
        kept: the origin's.
        own_range: whether files of more than 8 bits may have another range of values than the origin's.

    Raises:
        UserError: they do not.
    """
    here, there = vars(Preprocessing.of(data)), vars(preprocessing_of(kept))
    for name, value in there.items():
        # what may be read is no matter, nor the range of deep files where one of the two has none
        ranges = name == "values" and (own_range or not (value and here[name]))
        if here[name] != value and name != "max_pixels" and not ranges:
            remedy = (
                "state data.values if these files have a range of their own" if name == "values" else "set it alike"
            )
            raise UserError(f"[data]: {name} is {here[name]}, where the origin was trained with {value}; {remedy}")


def new_labels(data: DataSet, known: Sequence[str], *, more: bool) -> list[int]:
    """The labels of classes that data bring; those with test images alone bring nothing.

    Args:
        data: as loaded.
        known: names of classes that have been learned.
        more: whether training images may be of these.

    Raises:
        UserError: they are and may not be, one is written unlike a known one, or there are no images to learn from.
    """
    _check_twins(data, known)
    trained = data.train.labels.unique().tolist()
    twice = [data.class_names[label] for label in trained if data.class_names[label] in known]
    if twice and not more:
        listed = ", ".join(map(shown, twice[:5]))
        raise UserError(f"data: known already: {listed}; leave them out, or take more images of them in with --more")
    if not trained:
        raise UserError("data: has no training images; add some")
    return [label for label in trained if data.class_names[label] not in known]


def labels_in(data: DataSet, names: Sequence[str]) -> list[int | None]:
    """The labels that data give to named classes; None: they do not have the class.

    Raises:
        UserError: they have one that is written unlike a named one.
    """
    _check_twins(data, names)
    labels = {name: label for label, name in enumerate(data.class_names)}
    return [labels.get(name) for name in names]


def _check_twins(data: DataSet, known: Sequence[str]) -> None:
    """Refuse a class whose name differs from a known one in nothing that is seen, or in capitals alone."""

    def plain(name: str) -> str:
        return normalize("NFC", normalize("NFC", name).casefold().strip())

    written = {plain(name): name for name in known}
    for name in data.class_names:
        other = written.get(plain(name), name)
        if name not in known and name != other:
            raise UserError(f"data: class {name!a} is known as {other!a}; write its name alike, or another name")


NO_CLASSES = Step(1, range(0), range(0), 1)
"""A step of more images of known classes."""


def finished_steps(results: Results, later: Sequence[Step] = ()) -> list[Step]:
    """The steps of finished results, and behind them those that come later, numbered on."""
    steps, known = [], 0
    for each in results.steps:
        steps.append(Step(each.step, range(known, each.seen), range(each.seen), 0))
        known = each.seen
    for step in later:
        new = range(known + step.new_classes.start, known + step.new_classes.stop)
        steps.append(Step(len(steps) + 1, new, range(new.stop), 0))
    return [replace(step, total=len(steps)) for step in steps]


def source(resolved: Resolved, images: ImageSet | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """What a run has learned from: its [data], and what part of them was training images.

    Args:
        resolved: its recipe.
        images: those that it has learned from; folders are filled anew, and what was learned is known by this.
        names: of their classes, by label.
    """
    recipe = resolved.recipe
    told = {"data": resolved.tables()["data"], "validation": recipe.evaluation.validation, "seed": recipe.seed}
    return told if images is None else told | {"images": fingerprint(images, names)}


def fingerprint(images: ImageSet, names: Sequence[str]) -> str:
    """SHA-256 of images by class name and content, whatever their order and wherever they lie."""
    if isinstance(images, ImageFiles):
        contents: Iterable[bytes] = (Path(str(path)).read_bytes() for path in images.paths)
    else:
        contents = (image.tobytes() for image in images.pixels.cpu().numpy())
    labels = images.labels.tolist()
    each = [
        sha256(names[label].encode() + b"\0" + sha256(content).digest()).hexdigest()
        for label, content in zip(labels, contents, strict=True)
    ]
    return sha256("".join(sorted(each)).encode()).hexdigest()


def place(source: Mapping[str, Any]) -> str:
    """The folder that a source was read from; empty: it has none."""
    root = source.get("data", {}).get("root")
    return str(Path(root).resolve()) if root else ""


def same_source(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two have learned from the same images; of a data set that was not looked through, in the same run."""
    return one["images"] == two.get("images") if "images" in one else one == two


def sources_of(recorded: RecordedRun) -> list[dict[str, Any]]:
    """Those of a run and of the runs that it goes on from, oldest first.

    A first run does not look its data set through; what its read-outs held at the end tells it apart.
    """
    if recorded.results.sources:
        return recorded.results.sources
    said = recorded.results.steps[-1].readouts
    return [source(recorded.recipe) | {"statistics": {name: each["statistics"] for name, each in said.items()}}]


def check_readouts(resolved: Resolved, recorded: RecordedRun) -> None:
    """See that read-outs go on with sums as they were begun.

    Raises:
        UserError: one has other options than in the run that its sums are of.
    """
    before = {table["as"]: table for table in recorded.tables["readouts"]}
    for table in resolved.tables()["readouts"]:
        earlier = before.get(table["as"], table)
        for key in earlier.keys() | table.keys():
            # sums are carried over or not, whatever was done before
            if key != "transport" and earlier.get(key) != table.get(key):
                raise UserError(
                    f"readouts.{table['as']}.{key}: is {table.get(key)!r}, and {earlier.get(key)!r} in "
                    f"{recorded.path}, whose sums it goes on with; set it alike, or name the read-out apart with as"
                )


def continued(results: Results, *, new: Sequence[str], sources: list[dict[str, Any]], **changed: Any) -> Results:
    """Results to which steps with new classes will be added. A class has the number that comes next."""
    last = max(results.classes_order, default=-1)
    return replace(
        results,
        classes_order=[*results.classes_order, *range(last + 1, last + 1 + len(new))],
        class_names=[*results.class_names, *new],
        sources=sources,
        complete=False,
        **changed,
    )


def only_readouts(results: Results, names: Sequence[str]) -> Results:
    """Results of certain read-outs; a step that did not have one knows nothing of it."""

    def of(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in names}

    steps = []
    for number, step in enumerate(results.steps, 1):
        shorter = replace(
            step,
            accuracy={name: step.accuracy.get(name) for name in names},
            accuracy_top5={name: step.accuracy_top5.get(name) for name in names},
            accuracy_task_aware={name: step.accuracy_task_aware.get(name) for name in names},
            accuracy_by_step={name: step.accuracy_by_step.get(name, [None] * number) for name in names},
            confusion=of(step.confusion),
            readout_bytes=of(step.readout_bytes),
            readouts=of(step.readouts),
        )
        steps.append(shorter)
    return replace(results, steps=steps)
