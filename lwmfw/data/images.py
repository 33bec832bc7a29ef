"""Images, in memory or in files, the data set they make, and a batch of them.

Shapes: B images of a batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images in memory, sorted by class.

    Attributes:
        pixels: (N, C, H, W), uint8.
        labels: (N,), int64.
    """

    pixels: Tensor
    labels: Tensor

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
        return Images(self.pixels[first:last], self.labels[first:last])

    def select(self, index: Tensor) -> Images:
        """The images at positions (M,), int64, in that order."""
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> Images:
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


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
    """

    paths: Sequence[str | StoredImage]
    labels: Tensor
    size: int
    resize: int
    codec: Any = None
    channels: int = 3

    def __len__(self) -> int:
        return len(self.labels)

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
"""Images, wherever they are. Both kinds have labels, channels, size, of_classes, select and to."""


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
    """

    train: ImageSet
    test: ImageSet
    class_names: list[str]
    mean: list[float]
    std: list[float]
    padding: int = 0
    flip: bool = False
    skipped: list[str] = field(default_factory=list)


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
