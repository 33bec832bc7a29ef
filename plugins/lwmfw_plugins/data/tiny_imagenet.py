"""tiny-imagenet: 200 classes of ImageNet at 64x64 pixels, 500 training and 50 validation images each (Stanford 2015).

The validation images are the test set, as everywhere in the literature: the labels of the test images are not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from lwmfw import Component, Data, Field, UserError, hookimpl, images_below
from lwmfw_plugins.data._files import (
    FileOptions,
    check_class_count,
    data_set,
    find,
    listed_image,
    read_list,
)
from lwmfw_plugins.data._orders import numpy_order

if TYPE_CHECKING:
    from lwmfw import DataSet

SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


class TinyImageNetOptions(FileOptions):
    """Options of tiny-imagenet."""

    size: int = Field(64, ge=8, le=1024, description="height and width to which images are brought, in pixels")
    decode: Literal["each epoch", "once"] = Field(
        "once", description="once: into memory, shifted by up to 1/16 of its size; each epoch: a random part resized"
    )


class TinyImageNet:
    """100,000 training and 10,000 test images of 200 ImageNet classes, 64x64."""

    class_count: ClassVar[int] = 200

    def __init__(self, options: TinyImageNetOptions) -> None:
        self.options = options

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993."""
        return {"seed1993": numpy_order(self.class_count)}

    def load(self) -> DataSet:
        """Read root, or root/tiny-imagenet-200; label = line of wnids.txt.

        Raises:
            UserError: the set is missing, or a list names what is not there.
        """
        folder = find(self.options.root, ["", "tiny-imagenet-200"], "wnids.txt", SOURCE)
        ids = read_list(folder / "wnids.txt")
        check_class_count(len(ids), self.class_count, folder / "wnids.txt")
        labels = {wnid: label for label, wnid in enumerate(ids)}
        words = read_list(folder / "words.txt")
        names = [words[wnid].value.split(",")[0] if wnid in words else wnid for wnid in ids]
        train = [(path, labels[wnid]) for wnid in ids for path in images_below(folder / "train" / wnid)]
        return data_set(train, _validation(folder / "val", labels), names, self.options)


def _validation(folder: Path, labels: dict[str, int]) -> Iterator[tuple[str, int]]:
    for name, (value, place) in read_list(folder / "val_annotations.txt").items():
        wnid = value.partition(" ")[0]
        if wnid not in labels:
            raise UserError(f"{place}: '{wnid}' is no class of wnids.txt; restore the list")
        yield listed_image(folder / "images", name, place), labels[wnid]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("tiny-imagenet", TinyImageNet, TinyImageNetOptions)
