"""What a run learns from, in digests: whoever goes on from it sees whether it is still there.

Images in memory are known by their pixels, files by their names below what a class's folders have in common and by
their sizes, so that a data set may move as a whole. Both are looked at once, when a run is prepared: about 1.5 seconds
for a gigabyte of pixels, and a second for 250,000 files of a local disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lwmfw.data.images import DataSet, ImageFiles, Images, ImageSet, StoredImage
from lwmfw.data.loader import Preprocessing
from lwmfw.engine.run import Run
from lwmfw.errors import CheckpointRefused, command, shown
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.places import places, weight_files
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.reading import RecordedRun

SHOWN = 3


def data_facts(data: DataSet) -> dict[str, Any]:
    """What results.json states of a data set as it is loaded: the names of its classes by label, and for training and
    test images how many each class has and the beginning of their SHA-256; `sha256` is of all that."""
    told: dict[str, Any] = {"class_names": list(data.class_names)}
    for part, images in (("train", data.train), ("test", data.test)):
        each = list(_by_class(images, len(data.class_names)))
        told[part] = {"images": [count for count, _ in each], "sha256": [digest[:16] for _, digest in each]}
    return {"sha256": hashlib.sha256(json.dumps(told).encode()).hexdigest(), **told}


def _by_class(images: ImageSet, classes: int) -> Iterator[tuple[int, str]]:
    """How many images each class has, and their digest."""
    order = images.labels.cpu().argsort(stable=True)
    for members in order.split(images.labels.cpu().bincount(minlength=classes).tolist()):
        chosen, digest = images.select(members.to(images.labels.device)), hashlib.sha256()
        if isinstance(chosen, Images):
            digest.update(str(tuple(chosen.pixels.shape)).encode())
            digest.update(chosen.pixels.cpu().contiguous().numpy().data)
        else:
            digest.update(_listing(chosen))
        yield len(members), digest.hexdigest()


def _listing(files: ImageFiles) -> bytes:
    """Names and sizes of the files of a class."""
    paths = [path for path in files.paths if isinstance(path, str)]
    common = len(os.path.commonprefix([os.path.dirname(path) for path in paths]))  # noqa: RUF071 - of any strings
    lines = [f"{path[common:]}\0{os.path.getsize(path)}" for path in paths]
    lines += [hashlib.sha256(path.encoded).hexdigest() for path in files.paths if isinstance(path, StoredImage)]
    return "\n".join(lines).encode(errors="surrogateescape")


def file_digests(resolved: Resolved) -> dict[str, str]:
    """The SHA-256 of the files that components read, such as initial weights, by dotted key; those that are there."""
    found = {}
    for key, path in weight_files(resolved).items():
        if path.is_file():
            with path.open("rb") as stream:
                found[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def other_classes(run: Run, kept: Checkpoint) -> list[str]:
    """In what a run's classes differ from those of its checkpoint, in words."""
    then, now = kept.results, run.results
    told, telling = (then.data or {}).get("class_names"), (now.data or {}).get("class_names")
    if told and telling:
        said = _come_and_gone(told, telling)
    return (said if told and telling else []) or _come_and_gone(then.class_names, now.class_names)


def other_images(run: Run, kept: Checkpoint) -> list[str]:
    """In what a run's images differ from those of the same classes that its checkpoint has learned from, in words.

    Of an older checkpoint the names of the classes are known and no more.
    """
    told, telling = kept.results.data, run.results.data
    if not told or not telling:
        return []
    here = [name for name in run.results.class_names if name in telling["class_names"]]  # it may go on from another
    return _changed(told, telling, here, ["train", "test"][: 1 if run.recipe.evaluation.validation else 2])


def refusal(path: Path, resolved: Resolved, others: Sequence[str]) -> str:
    """Why the run at a path does not go on where something differs, in words."""
    movable = [key for key in sorted(places(resolved)) if key.startswith("data.")]
    again = command("resume", path, "--set", f"{movable[0]}=PLACE") if movable else ""
    moved = f", say with {again} where it is" if movable else ""
    return (
        f"{path}: has learned from other data than are there now: {_listed(others)}; put back what was there{moved}, "
        "or start anew"
    )


def check_classes(path: Path, resolved: Resolved, names: Sequence[str]) -> None:
    """See that a data set has the classes that the run at a path has begun with, before steps are made of them.

    Raises:
        CheckpointRefused: it has others.
    """
    told = RecordedRun(path).data_facts
    others = _come_and_gone(told["class_names"], names) if told else []
    if others:
        raise CheckpointRefused(refusal(path, resolved, others))


def other_first_step(run: Run, kept: Checkpoint) -> str:
    """In what the data that a run's first step depends on differ from those another run has trained it on, likewise."""
    then, now, count = kept.results, run.results, len(run.steps[0].seen_classes)
    names = now.class_names[:count]
    said = _come_and_gone(then.class_names[:count], names)
    if run.recipe.evaluation.validation and then.classes_order[:count] != now.classes_order[:count]:
        said = said or ["the classes have other numbers"]  # by which images are held out
    if then.data and now.data and not said:
        said = _changed(then.data, now.data, names, ["train"])
    theirs, ours = kept.facts.get("preprocessing", {}), vars(Preprocessing.of(run.data))
    said += [f"{name} is {ours[name]} rather than {value}" for name, value in theirs.items() if ours[name] != value]
    return _listed([*said, *other_files(then.files, now.files).values()])


def _come_and_gone(then: Sequence[str], now: Sequence[str]) -> list[str]:
    said = [f"class '{shown(name)}' has come" for name in now if name not in then]
    said += [f"class '{shown(name)}' has gone" for name in then if name not in now]
    return said or ["the classes come in another order"] * (list(then) != list(now))


def _changed(then: dict[str, Any], now: dict[str, Any], classes: Sequence[str], parts: Sequence[str]) -> list[str]:
    """What is said of classes whose images are others."""
    said = []
    for name in classes:
        before, here = ([told[part] for part in parts] for told in (then, now))
        old, new = then["class_names"].index(name), now["class_names"].index(name)
        more = sum(part["images"][new] for part in here) - sum(part["images"][old] for part in before)
        if more:
            said.append(
                f"{abs(more)} image{'s' * (abs(more) > 1)} {'more' if more > 0 else 'fewer'} in '{shown(name)}'"
            )
        elif [part["sha256"][new] for part in here] != [part["sha256"][old] for part in before]:
            said.append(f"other images in '{shown(name)}'")
    return said


def other_files(then: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The dotted keys of files that are others, and that in words."""
    return {key: f"{key} is another file" for key, digest in now.items() if then.get(key, digest) != digest}


def _listed(said: Sequence[str]) -> str:
    more = f", and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return ", ".join(said[:SHOWN]) + more
