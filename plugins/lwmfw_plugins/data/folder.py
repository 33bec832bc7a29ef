"""folder: a person's own images, one folder a class."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from unicodedata import normalize

from lwmfw import (
    IMAGE_SUFFIXES,
    Component,
    Data,
    Field,
    Folder,
    UserError,
    harmless,
    hookimpl,
    images_below,
    left_out_words,
)
from lwmfw_plugins.data._files import FileOptions, check_fits, data_set, shuffled, sub_folders

if TYPE_CHECKING:
    from lwmfw import DataSet

ClassFiles = list[list[str]]
"""Per class, the paths of its images."""

PARTS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
}
"""Word -> the part of a set that a folder of such a name holds."""

FILLERS = ("dataset", "set", "data", "images", "image", "imgs", "img", "split", "folder")
"""Words that may stand beside it: train_set, TestImages."""

CONTAINERS = frozenset({"images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpeg", "png"})
"""Folders that every class may have inside."""

TAKE = 'or set data.nested = "take" if each is one class'
SHOWN = 5


class OwnOptions(FileOptions):
    """Options of folder."""

    root: Folder = Field("", description="folder of class folders, or of train/ and test/ with class folders")
    test: Folder = Field("", description="folder of class folders to use as the test set instead of a share")
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of each class to use as the test set if none is given"
    )
    split_seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the choice of these images")
    nested: Literal["refuse", "take"] = Field(
        "refuse",
        description="what becomes of folders that look like no classes, since what lies inside has the same names in "
        "several, or is classes itself; take: it belongs to the class",
    )
    unreadable: Literal["refuse", "skip"] = Field(
        "refuse", description="what becomes of images that cannot be decoded; env.json lists the skipped ones"
    )


class OwnImages:
    """Your own images: root/CLASS/..., split at random; root/train/CLASS/..., root/test/CLASS/...; or two folders."""

    class_count: ClassVar[None] = None

    def __init__(self, options: OwnOptions) -> None:
        self.options = options
        self.left_out: Counter[str] = Counter()
        """What was passed over, by suffix, and by name and "/" for folders."""

    def load(self) -> DataSet:
        """List the images and decode each once, so that what cannot be read is known before anything is learned.

        Without a root there are no classes. Classes are in natural order: 2 before 10. Folders inside a class folder
        belong to it; links to them are not followed. What is no image by its suffix or its content is passed over, and
        told. A class's test images stay the same wherever the folder lies.

        Raises:
            UserError: no classes, folders that are none, two that differ in capitals alone, other classes in test/ than
                in train/, a class without images, unreadable images.
        """
        if not self.options.root:
            return data_set([], [], [], self.options)
        root = Path(self.options.root)
        self.left_out.clear()
        folders = sub_folders(root, self.left_out)
        places = _parts(root, folders)
        separate = bool(places)
        if separate:
            self._leave(folders, places[: 1 if self.options.test else 2])
        names, parts = self._separate(places) if separate else self._together(root, folders)
        if self.options.test:
            names, parts, separate = self._tested(names, parts[0], Path(self.options.test))
        _refuse_twins(names)
        if self.left_out:
            listed = left_out_words(self.left_out)
            said = harmless(f"{root}: left out: {listed}")
            print(f"{said}; convert, rename or move what is a class's image", file=sys.stderr)
        every = [path for part in parts for paths in part for path in paths]
        check_fits(len(every), self.options)
        skipped = self._unreadable(every)
        left_out = set(skipped)
        parts = [[[path for path in paths if path not in left_out] for paths in part] for part in parts]
        train, test = parts if separate else self._split(root, parts[0])
        return data_set(_labelled(train), _labelled(test), names, self.options, skipped, self.left_out)

    def _together(self, root: Path, folders: Sequence[Path]) -> tuple[list[str], list[ClassFiles]]:
        if not folders:
            raise UserError(f"{root} has no folders; put the images of each class into a folder of its name")
        return [folder.name for folder in folders], [self._listed(root, folders)]

    def _separate(self, places: Sequence[Path]) -> tuple[list[str], list[ClassFiles]]:
        """The classes of two folders."""
        folders = [{path.name: path for path in sub_folders(place, self.left_out)} for place in places]
        if not folders[0]:
            raise UserError(f"{places[0]} has no folders; put each class's images into a folder of its name")
        _refuse_twins(dict.fromkeys(name for part in folders for name in part))
        for one, other in ((0, 1), (1, 0)):
            for name in folders[one]:
                if name not in folders[other]:
                    raise UserError(
                        f"class '{name}' is in {places[one].name} but not in {places[other].name}; add its images there"
                    )
        parts = [self._listed(place, list(part.values())) for place, part in zip(places, folders, strict=True)]
        own = [dict(zip(part, paths, strict=True)) for part, paths in zip(folders, parts, strict=True)]
        return list(folders[0]), [[part[name] for name in folders[0]] for part in own]

    def _tested(self, names: list[str], train: ClassFiles, folder: Path) -> tuple[list[str], list[ClassFiles], bool]:
        """Classes to be learned and their test images; behind them classes of test images alone, such as known ones."""
        folders = sub_folders(folder, self.left_out)
        if places := _parts(folder, folders):
            self._leave(folders, places[1:])
            folder, folders = places[1], sub_folders(places[1], self.left_out)
        if not folders:
            raise UserError(f"{folder} has no folders; put each class's test images into a folder of its name")
        own = dict(zip([path.name for path in folders], self._listed(folder, folders), strict=True))
        every = [*names, *(name for name in own if name not in names)]
        return every, [train + [[]] * (len(every) - len(names)), [own.get(name, []) for name in every]], True

    def _leave(self, folders: Sequence[Path], used: Sequence[Path]) -> None:
        self.left_out.update(f"{folder.name}/" for folder in folders if folder not in used)

    def _listed(self, place: Path, folders: Sequence[Path]) -> ClassFiles:
        """The images of class folders."""
        listed = [_images(folder, self.left_out) for folder in folders]
        inside = [_inside(folder, paths) for folder, paths in zip(folders, listed, strict=True)]
        for parents in inside:
            _refuse_parts(parents)
        if self.options.nested == "refuse":
            _refuse_repeated(place, folders, inside)
            _question_groups(place, [_groups(*each) for each in zip(folders, listed, inside, strict=True)], folders)
        return listed

    def _split(self, root: Path, classes: ClassFiles) -> tuple[ClassFiles, ClassFiles]:
        """At least one test image a class, of more than one, chosen by seed and file names alone."""
        o = self.options
        orders = [shuffled(paths, root, o.split_seed) for paths in classes]
        counts = [min(len(paths) - 1, max(1, round(len(paths) * o.test_share))) for paths in classes]
        held_out = [sorted(order[:count]) for order, count in zip(orders, counts, strict=True)]
        kept = [sorted(order[count:]) for order, count in zip(orders, counts, strict=True)]
        return kept, held_out

    def _unreadable(self, paths: list[str]) -> list[str]:
        from lwmfw import unreadable_images

        found = unreadable_images(paths, values=self.options.values, max_pixels=self.options.max_pixels)
        if found and self.options.unreadable == "refuse":
            listed = ", ".join(f"{path} ({reason})" for path, reason in list(found.items())[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UserError(
                f"{len(found)} of {len(paths)} images cannot be read: {listed}{more}; "
                'replace or remove them, or leave them out with data.unreadable = "skip"'
            )
        return list(found)


def _part_of(name: str) -> str:
    """Which part of a set a folder holds by its name, in any case and common spelling; empty: none."""
    words = [word for word in re.findall(r"[^\W\d_]+", normalize("NFKC", name).casefold()) if word not in FILLERS]
    if len(words) != 1:
        return ""
    spelled = [words[0], *(words[0].removesuffix(filler) for filler in FILLERS)]
    return next((PARTS[word] for word in spelled if word in PARTS), "")


def _parts(root: Path, folders: Sequence[Path]) -> list[Path]:
    """The folders of training and test images, where a folder holds those and not classes; none: it holds classes.

    Raises:
        UserError: there are some of such names, and not one of each.
    """
    known = {folder: part for folder in folders if (part := _part_of(folder.name))}
    parts = list(known.values())
    several = "train" in parts and len(set(parts)) > 1
    if not known or (not several and len(known) < len(folders)):
        return []
    if parts.count("train") == parts.count("test") == 1:
        return [folder for part in ("train", "test") for folder in folders if known.get(folder) == part]
    listed = ", ".join(folder.name for folder in known)
    raise UserError(
        f"{root} has {listed} but not both train and test; rename the folders to that, or name one of each with "
        "data.root and data.test"
    )


def _inside(folder: Path, paths: Sequence[str]) -> defaultdict[str, set[str]]:
    """The folders in which images of a class lie, by the folder they are in."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in {os.path.dirname(path) for path in paths}:
        inner = path
        while len(inner) > len(str(folder)):
            inner, name = os.path.split(inner)
            found[inner].add(name)
    return found


def _groups(folder: Path, paths: Sequence[str], inside: Mapping[str, set[str]]) -> list[str]:
    """The folders directly in a class's, where there are several and all its images lie in them."""
    names = sorted(inside.get(str(folder), ()))
    lone = len(names) < 2 or any(os.path.dirname(path) == str(folder) for path in paths)
    return [] if lone else names


def _question_groups(place: Path, groups: Sequence[Sequence[str]], folders: Sequence[Path]) -> None:
    """Refuse a single class that is made of folders, and ask about several: these may be the classes."""
    if not all(groups):
        return
    if len(folders) == 1:
        raise UserError(f"{folders[0]} has no images beside its folders; name it instead, {TAKE}")
    said = harmless(f"as '{folders[0].name}' is of {', '.join(groups[0][:SHOWN])}")
    print(
        f"{harmless(str(place))}: every class is made of folders, {said}; put these into one folder if they are the "
        f"classes, {TAKE}",
        file=sys.stderr,
    )


def _refuse_parts(inside: Mapping[str, set[str]]) -> None:
    """Refuse a class that would mix training and test images."""
    for place, names in inside.items():
        parts = sorted(name for name in names if _part_of(name))
        if len({_part_of(name) for name in parts}) > 1:
            raise UserError(
                f"{place} holds {' and '.join(parts)}; name it as data.root if classes lie inside these, or else move "
                "its images to train/CLASS and test/CLASS"
            )


def _refuse_repeated(place: Path, folders: Sequence[Path], inside: Sequence[Mapping[str, set[str]]]) -> None:
    """Refuse folders that hold the same folders, or what lies beside them: days, folds, or parts by other names."""
    holders = {folder.name.casefold(): folder.name for folder in folders}
    beside = set(holders)
    for folder, parents in zip(folders, inside, strict=True):
        names = {name.casefold() for each in parents.values() for name in each} - CONTAINERS
        again = sorted(name for name in names if name in holders and holders[name] != folder.name)
        if again:
            other = f"and '{again[0]}' lies beside it" if again[0] in beside else f"as '{holders[again[0]]}' does"
            raise UserError(
                f"{place}: '{folder.name}' has a folder '{again[0]}', {other}: it looks like no class; name a folder "
                f"whose folders are classes, {TAKE}"
            )
        holders |= dict.fromkeys(names - beside, folder.name)


def _refuse_twins(names: Iterable[str]) -> None:
    written: dict[str, str] = {}
    for name in names:
        other = written.setdefault(normalize("NFC", normalize("NFC", name).casefold().strip()), name)
        if other != name:
            raise UserError(
                f"classes {other!a} and {name!a} differ in capitals, composed letters or outer spaces alone; give both "
                "one name, or other names"
            )


def _images(folder: Path, left_out: Counter[str]) -> list[str]:
    counts: Counter[str] = Counter()
    found = images_below(folder, counts)
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        only = f", only {left_out_words(counts)}" if counts else ""
        raise UserError(f"{folder} has no images ({known}){only}; add some or remove the folder")
    left_out.update(counts)
    return found


def _labelled(classes: ClassFiles) -> list[tuple[str, int]]:
    return [(path, label) for label, paths in enumerate(classes) for path in paths]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("folder", OwnImages, OwnOptions)
