"""What a run's memory keeps, of each class, and what its exemplars look like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lwmfw.errors import LwmfwError
from lwmfw.record.reading import RecordedRun

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw.data.images import ImageSet

MOST = 8
"""Classes that are shown, and exemplars of each."""
_LARGEST, _SHOWN, _GAP = 96, 64, 2
"""Pixels of an exemplar in a picture, those to which small ones are enlarged, and those between two."""


@dataclass(frozen=True)
class Strip:
    """Exemplars of a class, the most important first, as PNG whose pixels are to be shown so many times as large."""

    label: int
    count: int
    png: bytes
    times: int


@dataclass(frozen=True)
class Kept:
    """Class -> exemplars and their bytes; pictures of some; or why they cannot be read."""

    counts: dict[int, int]
    sizes: dict[int, int]
    strips: Sequence[Strip]
    fault: str = ""


def kept_exemplars(run: RecordedRun) -> Kept | None:
    """What a run keeps after its last finished step; None: it keeps none, or only its results are there."""
    if "memory" not in run.tables or not run.results.steps or not run.results.steps[-1].exemplars:
        return None
    from lwmfw.engine.opened import OpenedRun

    try:
        memory = OpenedRun(run.path).memory()
        labels, bytes_of = memory.labels.tolist(), memory.sizes
        counts, sizes = (dict.fromkeys(labels, 0) for _ in range(2))
        for label, size in zip(labels, bytes_of, strict=True):
            counts[label] += 1
            sizes[label] += size
        chosen = {label: labels.index(label) for label in evenly_spread(sorted(counts), MOST)}
        strips = [
            _strip(label, memory.some(range(first, first + min(MOST, counts[label]))))
            for label, first in chosen.items()
        ]
    except LwmfwError as error:
        return Kept({}, {}, [], str(error))
    return Kept(counts, sizes, strips)


def evenly_spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of them, from the first to the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _strip(label: int, images: ImageSet) -> Strip:
    """Exemplars of one class side by side."""
    from PIL import Image

    from lwmfw.data.decoding import decode_images
    from lwmfw.data.images import ImageFiles

    pixels = (decode_images(images) if isinstance(images, ImageFiles) else images).pixels.cpu()
    cells = [Image.fromarray(in_colours(each).permute(1, 2, 0).contiguous().numpy()) for each in pixels]
    for cell in cells:
        cell.thumbnail((_LARGEST, _LARGEST))
    width, height = cells[0].size
    strip = Image.new("RGBA", (len(cells) * (width + _GAP) - _GAP, height), (0, 0, 0, 0))
    for place, cell in enumerate(cells):
        strip.paste(cell, (place * (width + _GAP), 0))
    stream = io.BytesIO()
    strip.save(stream, "PNG", optimize=True)
    return Strip(label, len(cells), stream.getvalue(), max(1, _SHOWN // width))


def in_colours(pixels: Tensor) -> Tensor:
    """An image (C, H, W), uint8, in three channels: grey as grey, of two their mean, of more the first three."""
    if len(pixels) == 2:
        pixels = pixels.float().mean(0, keepdim=True).byte()
    return pixels[:3].expand(3, -1, -1)
