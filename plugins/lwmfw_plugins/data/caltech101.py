"""caltech101: photographs of 101 kinds of things, 31 to 800 of each (Fei-Fei et al. 2004).

The set has no published split. The field's custom is kept: a fixed number of training images a class, the rest tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from lwmfw import Component, Data, Field, hookimpl, images_below
from lwmfw_plugins.data._files import (
    FileOptions,
    Labelled,
    check_class_count,
    data_set,
    find,
    shuffled,
    sub_folders,
)
from lwmfw_plugins.data._orders import numpy_order

if TYPE_CHECKING:
    from lwmfw import DataSet

SOURCE = "https://data.caltech.edu/records/mzrjq-6wc02, or torchvision.datasets.Caltech101(root, download=True)"
IMAGES = "101_ObjectCategories"
NO_CLASS = "BACKGROUND_Google"


class Caltech101Options(FileOptions):
    """Options of caltech101."""

    train_per_class: int = Field(30, ge=1, le=30, description="training images of each class; the rest are test images")
    split_seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the choice of these images")


class Caltech101:
    """Caltech-101 without its background class: 30 training images per class, about 5,600 test images."""

    class_count: ClassVar[int] = 101

    def __init__(self, options: Caltech101Options) -> None:
        self.options = options

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993."""
        return {"seed1993": numpy_order(self.class_count)}

    def load(self) -> DataSet:
        """Read root, or root/caltech101, where torchvision puts it.

        Raises:
            UserError: the set is missing or has other classes.
        """
        folder = find(self.options.root, ["", "caltech101"], IMAGES, SOURCE) / IMAGES
        classes = [path for path in sub_folders(folder) if path.name != NO_CLASS]
        check_class_count(len(classes), self.class_count, folder)
        train: list[Labelled] = []
        test: list[Labelled] = []
        for label, path in enumerate(classes):
            order = shuffled(images_below(path), folder, self.options.split_seed)
            count = self.options.train_per_class
            train += [(image, label) for image in sorted(order[:count])]
            test += [(image, label) for image in sorted(order[count:])]
        return data_set(train, test, [path.name for path in classes], self.options)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("caltech101", Caltech101, Caltech101Options)
