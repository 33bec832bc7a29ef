"""cub200: CUB-200-2011, 200 kinds of birds, about 30 training and 30 test images each (Wah et al. 2011)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, ClassVar

from lwmfw import Component, Data, UserError, hookimpl
from lwmfw_plugins.data._files import Entry, FileOptions, check_class_count, data_set, find, listed_image, read_list
from lwmfw_plugins.data._orders import numpy_order

if TYPE_CHECKING:
    from lwmfw import DataSet

SOURCE = "https://data.caltech.edu/records/65de6-vp158"


class Cub200:
    """5,994 training and 5,794 test images of 200 bird species, in the published split."""

    class_count: ClassVar[int] = 200

    def __init__(self, options: FileOptions) -> None:
        self.options = options

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993."""
        return {"seed1993": numpy_order(self.class_count)}

    def load(self) -> DataSet:
        """Read root, or root/CUB_200_2011.

        Raises:
            UserError: the set is missing, or a list is malformed or names what is not there.
        """
        folder = find(self.options.root, ["", "CUB_200_2011"], "images.txt", SOURCE)
        images, classes, split, names = (
            read_list(folder / name)
            for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
        )
        check_class_count(len(names), self.class_count, folder / "classes.txt")
        labels = {key: label for label, key in enumerate(names)}
        parts: dict[str, list[tuple[str, int]]] = {"1": [], "0": []}
        for key, (name, place) in images.items():
            path = listed_image(folder / "images", name, place)
            label = labels[_said(classes, key, labels, place, "image_class_labels.txt")]
            parts[_said(split, key, parts, place, "train_test_split.txt")].append((path, label))
        # "001.Black_footed_Albatross"
        birds = [entry.value.partition(".")[2].replace("_", " ") or entry.value for entry in names.values()]
        return data_set(parts["1"], parts["0"], birds, self.options)


def _said(entries: dict[str, Entry], key: str, allowed: Collection[str], place: str, name: str) -> str:
    """What another list says of an image."""
    if key not in entries:
        raise UserError(f"{place}: image {key} has no line in {name}; restore the lists")
    value, where = entries[key]
    if value not in allowed:
        raise UserError(f"{where}: '{value}' is not known; restore the file")
    return value


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("cub200", Cub200, FileOptions)
