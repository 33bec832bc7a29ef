"""Images, in memory or in files, the data set they make, and a batch of them.

Shapes: B images of a batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwmfw.data.pixels import MAX_PIXELS, USUAL, Reading, only_flat, settled_values


@dataclass(frozen=True)
class Images:
    """Images in memory, sorted by class.

    Attributes:
        pixels: (N, C, H, W), uint8.
        labels: (N,), int64.
        reading: how the files were read that they come from, if they do.
    """

    pixels: Tensor
    labels: Tensor
    reading: Reading = USUAL

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """C."""
        return self.pixels.shape[1]

    @property
    def size(self) -> int:
        """Height in pixels."""
        return self.pixels.shape[2]

    def of_classes(self, classes: range) -> Images:
        """The images of consecutive classes, as a view."""
        first, last = _bounds(self.labels, classes)
        return Images(self.pixels[first:last], self.labels[first:last], self.reading)

    def select(self, index: Tensor) -> Images:
        """The images at positions (M,), int64, in that order."""
        return Images(self.pixels[index], self.labels[index], self.reading)

    def to(self, device: torch.device) -> Images:
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.reading)


class StoredImage(NamedTuple):
    """An image as the memory stores it, height and width in pixels."""

    encoded: bytes
    height: int
    width: int


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay in their files, sorted by class, and are decoded whenever they are shown.

    Training cuts out a random part of an image (8 % to all of its area, sides 3:4 to 4:3) and resizes it to `size`;
    evaluation resizes the shorter side to `resize` and cuts `size` out of the centre. Decoded images are uint8.

    Attributes:
        paths: of N files; in place of a path, an exemplar.
        labels: (N,), int64.
        size: height and width of a decoded image, in pixels.
        resize: at least `size`, in pixels.
        codec: decodes exemplars.
        channels: 3, or 1 for grey.
        background: the colour that shows where a file is transparent, as Pillow names or codes it.
        values: of files of more than 8 bits a channel, which become black and white; (): as each file has them.
        max_pixels: of a file, as it is decoded; a larger one cannot be read.
    """

    paths: Sequence[str | StoredImage]
    labels: Tensor
    size: int
    resize: int
    codec: Any = None
    channels: int = 3
    background: str = "white"
    values: tuple[float, ...] = ()
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def reading(self) -> Reading:
        """How a file is read."""
        return Reading(self.background, tuple(self.values), self.max_pixels)

    def settled(self) -> ImageFiles:
        """The same files with the `values` that are theirs together, so that one scale holds for all.

        Raises:
            UserError: they have none.
        """
        values = settled_values([path for path in self.paths if isinstance(path, str)], self.reading)
        return replace(self, values=values or self.values)

    def only_flat(self) -> bool:
        """Whether every image is of one single value, and there is one."""
        return only_flat([path for path in self.paths if isinstance(path, str)], self.reading)

    def of_classes(self, classes: range) -> ImageFiles:
        """The files of consecutive classes."""
        first, last = _bounds(self.labels, classes)
        return replace(self, paths=self.paths[first:last], labels=self.labels[first:last])

    def select(self, index: Tensor) -> ImageFiles:
        """The files at positions (M,), int64, in that order."""
        return replace(self, paths=[self.paths[i] for i in index.tolist()], labels=self.labels[index])

    def to(self, device: torch.device) -> ImageFiles:
        """The same files, their labels on a device: where the images go once they are decoded."""
        return replace(self, labels=self.labels.to(device))


ImageSet = Images | ImageFiles
"""Images, wherever they are. Both kinds have labels, channels, size, reading, of_classes, select and to."""


def _bounds(labels: Tensor, classes: range) -> tuple[int, int]:
    """Where consecutive classes begin and end in sorted labels."""
    bounds = torch.tensor([classes.start, classes.stop], device=labels.device)
    first, last = torch.searchsorted(labels, bounds).tolist()
    return first, last


@dataclass(frozen=True)
class DataSet:
    """What a data component loads.

    Attributes:
        train: training images, labels as the data set has them.
        test: test images.
        class_names: one per label.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, likewise.
        padding: zeros around an image in memory before it is cropped back at random; 0: no cropping.
        flip: whether training images are mirrored at random.
        skipped: files that were left out because they cannot be read.
        left_out: what else was, counted by suffix, and by name and "/" for folders, as `images_below` counts it.
        brightness: pixels of a training image are multiplied by 1 - brightness to 1 + brightness at random; 0: by 1.
    """

    train: ImageSet
    test: ImageSet
    class_names: list[str]
    mean: list[float]
    std: list[float]
    padding: int = 0
    flip: bool = False
    skipped: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    brightness: float = 0.0


@dataclass(frozen=True)
class Batch:
    """One batch of training.

    Attributes:
        images: (B, C, H, W), float32, augmented and normalised.
        labels: (B,), int64, positions in the class order.
        from_memory: (B,), bool: the image is an exemplar.
    """

    images: Tensor
    labels: Tensor
    from_memory: Tensor
