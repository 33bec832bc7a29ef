"""folder: a person's own images, one folder a class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from lwmfw import IMAGE_SUFFIXES, Component, Data, Field, Folder, UserError, hookimpl, images_below
from lwmfw_plugins.data._files import FileOptions, data_set, shuffled, sub_folders

if TYPE_CHECKING:
    from lwmfw import DataSet

ClassFiles = list[list[str]]
"""Per class, the paths of its images."""

PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
SHOWN = 5


class OwnOptions(FileOptions):
    """Options of folder."""

    root: Folder = Field("", description="folder of class folders, or of train/ and test/ with class folders")
    test: Folder = Field("", description="folder of class folders that are the test set, in the place of a share")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of each class that is the test set, if none is given")
    split_seed: int = Field(0, ge=0, le=2**63 - 1, description="of which images these are")
    unreadable: Literal["refuse", "skip"] = Field(
        "refuse", description="what becomes of images that cannot be decoded; env.json lists the skipped ones"
    )


class OwnImages:
    """Your own images: root/CLASS/... split at random, root/train/CLASS/... and root/test/CLASS/..., or two folders."""

    class_count: ClassVar[None] = None

    def __init__(self, options: OwnOptions) -> None:
        self.options = options

    def load(self) -> DataSet:
        """List the images and decode each once, so that what cannot be read is known before anything is learned.

        Without a root there are no classes. Folders inside a class folder belong to it; links to them are not followed.
        Hidden files and files that are no images by their suffix are passed over. A class's test images stay the same
        wherever the folder lies.

        Raises:
            UserError: no classes, other classes in test/ than in train/, a class without images, unreadable images.
        """
        if not self.options.root:
            return data_set([], [], [], self.options)
        root = Path(self.options.root)
        separate = (root / "train").is_dir() and (root / "test").is_dir()
        names, parts = _separate(root) if separate else _together(root)
        if self.options.test:
            names, parts, separate = _tested(names, parts[0], Path(self.options.test))
        skipped = self._unreadable([path for part in parts for paths in part for path in paths])
        left_out = set(skipped)
        parts = [[[path for path in paths if path not in left_out] for paths in part] for part in parts]
        train, test = parts if separate else self._split(root, parts[0])
        return data_set(_labelled(train), _labelled(test), names, self.options, skipped)

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

        found = unreadable_images(paths)
        if found and self.options.unreadable == "refuse":
            listed = ", ".join(f"{path} ({reason})" for path, reason in list(found.items())[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UserError(
                f"{len(found)} of {len(paths)} images cannot be read: {listed}{more}; "
                'replace or remove them, or leave them out with data.unreadable = "skip"'
            )
        return list(found)


def _together(root: Path) -> tuple[list[str], list[ClassFiles]]:
    folders = sub_folders(root)
    names = [folder.name for folder in folders]
    if not names:
        raise UserError(f"{root} has no folders; put the images of each class into a folder of its name")
    if PARTS.issuperset(names):
        raise UserError(f"{root} has {', '.join(names)} but not both train and test; rename the folders to that")
    return names, [[_images(folder) for folder in folders]]


def _separate(root: Path) -> tuple[list[str], list[ClassFiles]]:
    folders = {part: {path.name: path for path in sub_folders(root / part)} for part in ("train", "test")}
    names = list(folders["train"])
    if not names:
        raise UserError(f"{root / 'train'} has no folders; put each class's images into a folder of its name")
    for part, other in (("train", "test"), ("test", "train")):
        for name in folders[part]:
            if name not in folders[other]:
                raise UserError(f"class '{name}' is in {part} but not in {other}; add its images there")
    return names, [[_images(folders[part][name]) for name in names] for part in ("train", "test")]


def _tested(names: list[str], train: ClassFiles, folder: Path) -> tuple[list[str], list[ClassFiles], bool]:
    """Classes to be learned and their test images; behind them classes of test images alone, such as known ones."""
    own = {path.name: _images(path) for path in sub_folders(folder)}
    if not own:
        raise UserError(f"{folder} has no folders; put each class's test images into a folder of its name")
    every = [*names, *(name for name in own if name not in names)]
    return every, [train + [[]] * (len(every) - len(names)), [own.get(name, []) for name in every]], True


def _images(folder: Path) -> list[str]:
    found = images_below(folder)
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder} has no images ({known}); add some or remove the folder")
    return found


def _labelled(classes: ClassFiles) -> list[tuple[str, int]]:
    return [(path, label) for label, paths in enumerate(classes) for path in paths]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("folder", OwnImages, OwnOptions)
