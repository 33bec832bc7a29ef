"""imagenet: ILSVRC 2012, all 1000 classes or 100 of them (Russakovsky et al. 2015).

The 100 classes are the first of NumPy's RandomState(seed).permutation(1000) over the sorted class ids; labels number
them in that order. Seed 1993 gives the field's ImageNet-100 (classes 54, 7, 894, ...), any other an iILSVRC-small: 100
random classes, as in iCaRL and Learning without Memorizing. The validation images are the test set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Data, Field, UserError, hookimpl, images_below
from lwmfw_plugins.data._files import (
    FileOptions,
    check_class_count,
    data_set,
    find,
    read_list,
    sub_folders,
)
from lwmfw_plugins.data._orders import numpy_order

if TYPE_CHECKING:
    from lwmfw import DataSet

SOURCE = "from image-net.org, with train/ and val/ sorted into one folder a class"
MAPPING = "LOC_synset_mapping.txt"
CLASSES = 1000


class ImageNetOptions(FileOptions):
    """Options of imagenet."""

    subset: Literal[1000, 100] = Field(1000, description="all classes, or the first 100 of a random order of them")
    subset_seed: int = Field(
        1993, ge=0, le=2**32 - 1, description="seed of that order; 1993 gives the field's ImageNet-100"
    )


class ImageNet:
    """1.28 million training and 50,000 test images of 1000 classes, or of 100 of them."""

    def __init__(self, options: ImageNetOptions) -> None:
        self.options = options
        self.class_count: int = options.subset

    @property
    def orders(self) -> dict[str, list[int]]:
        """seed1993."""
        return {"seed1993": numpy_order(self.class_count)}

    def load(self) -> DataSet:
        """List train/ and val/ below root, or below root/ILSVRC/Data/CLS-LOC.

        Raises:
            UserError: the set is missing or incomplete, or val/ is not sorted into class folders.
        """
        root = Path(self.options.root)
        folder = find(self.options.root, ["", "ILSVRC/Data/CLS-LOC"], "train", SOURCE)
        _check_sorted(folder / "val")
        words = read_list(root / MAPPING) if (root / MAPPING).exists() else {}
        ids = sorted(words) if words else [path.name for path in sub_folders(folder / "train")]
        check_class_count(len(ids), CLASSES, root / MAPPING if words else folder / "train")
        chosen = [ids[i] for i in self._chosen()]
        names = [words[wnid].value.split(",")[0] if words else wnid for wnid in chosen]
        train, test = (
            [(path, label) for label, wnid in enumerate(chosen) for path in images_below(folder / part / wnid)]
            for part in ("train", "val")
        )
        return data_set(train, test, names, self.options)

    def _chosen(self) -> list[int]:
        """The classes in the order of their labels, as positions among the sorted ids."""
        if self.options.subset == CLASSES:
            return list(range(CLASSES))
        return numpy_order(CLASSES, self.options.subset_seed)[: self.options.subset]


def _check_sorted(folder: Path) -> None:
    if not sub_folders(folder):
        raise UserError(
            f"{folder} has no class folders; move each validation image into the folder of its class, "
            "as valprep.sh of github.com/soumith/imagenetloader.torch does"
        )


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("imagenet", ImageNet, ImageNetOptions)
