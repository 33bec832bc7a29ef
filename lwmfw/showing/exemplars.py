"""What a run's memory keeps of each class, what its exemplars look like, and what they were before they were stored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lwmfw.errors import LwmfwError
from lwmfw.record.reading import RecordedRun
from lwmfw.showing.files import png_in

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw.data.images import ImageSet
    from lwmfw.engine.run import Run
    from lwmfw.memory.store import Memory

MOST = 8
"""Classes that are shown, and exemplars of each."""
_LARGEST, _SHOWN, _GAP = 96, 64, 2
"""Pixels of an exemplar in a picture, those to which small ones are enlarged, and those between two."""
_MOST_BYTES = 1_000_000
"""Of a picture of what exemplars were."""
_COMPARED = 64
"""Pixels of the largest images among which those are looked for that exemplars were."""


@dataclass(frozen=True)
class Strip:
    """Exemplars of a class, the most important first, as PNG; and the training images that they were, if that is known.

    Attributes:
        label: the class.
        count: how many exemplars are shown.
        stored: the exemplars.
        original: the training images; empty: not known, or the same.
        times: how large a pixel is to be shown.
    """

    label: int
    count: int
    stored: bytes
    original: bytes
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
    from lwmfw.engine.borrowed import given_back
    from lwmfw.engine.opened import OpenedRun

    try:
        with given_back():
            return _kept(run, OpenedRun(run.path).memory())
    except LwmfwError as error:
        return Kept({}, {}, [], str(error))


def _kept(run: RecordedRun, memory: Memory) -> Kept:
    counts = dict.fromkeys(memory.labels.tolist(), 0)
    sizes = counts.copy()
    for label, size in zip(memory.labels.tolist(), memory.sizes, strict=True):
        counts[label] += 1
        sizes[label] += size
    strips = [_strip(run, label, memory.some(places)) for label, places in chosen(memory).items()]
    return Kept(counts, sizes, strips)


def chosen(memory: Memory) -> dict[int, range]:
    """Which exemplars are shown: the first of some classes, from the first class to the last."""
    labels = memory.labels.tolist()
    known = sorted(set(labels))
    places = {label: labels.index(label) for label in evenly_spread(known, MOST)}
    return {label: range(first, first + min(MOST, labels.count(label))) for label, first in places.items()}


def evenly_spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of them, from the first to the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def keep_originals(run: Run) -> None:
    """Leave pictures of what the exemplars that a report shows were before they were refined and stored.

    The memory does not know: they are the training images of the class that are nearest, pixel by pixel. Where these
    are the same as what is stored, or large, nothing is left.
    """
    from lwmfw.data.images import Images

    train = run.data.train
    if run.memory is None or run.directory is None or not isinstance(train, Images) or train.size > _COMPARED:
        return
    for label, places in chosen(run.memory).items():
        stored = run.memory.some(places)
        assert isinstance(stored, Images), "as the training images are"  # noqa: S101
        nearest = nearest_of(stored.pixels, train.of_classes(range(label, label + 1)).pixels)
        if not nearest.equal(stored.pixels):
            run.directory.write(_original(label), _png(nearest))


def nearest_of(pixels: Tensor, candidates: Tensor) -> Tensor:
    """For each image (M, C, H, W), uint8, the one of candidates (N, C, H, W) from which it differs least, likewise."""
    import torch

    distances = [(candidates.short() - each.short()).abs().flatten(1).sum(1) for each in pixels]
    return candidates[torch.stack(distances).argmin(1)]


def _original(label: int) -> str:
    return f"memory/original-{label}.png"


def _strip(run: RecordedRun, label: int, images: ImageSet) -> Strip:
    from lwmfw.data.decoding import decode_images
    from lwmfw.data.images import ImageFiles

    pixels = (decode_images(images) if isinstance(images, ImageFiles) else images).pixels
    original = png_in(run.path, run.path / _original(label), _MOST_BYTES) if run.finished else b""
    return Strip(label, len(pixels), _png(pixels), original, max(1, _SHOWN // pixels.shape[3]))


def _png(pixels: Tensor) -> bytes:
    """Images (N, C, H, W), uint8, side by side."""
    from PIL import Image

    cells = [Image.fromarray(in_colours(each).permute(1, 2, 0).contiguous().numpy()) for each in pixels.cpu()]
    for cell in cells:
        cell.thumbnail((_LARGEST, _LARGEST))
    width, height = cells[0].size
    strip = Image.new("RGBA", (len(cells) * (width + _GAP) - _GAP, height), (0, 0, 0, 0))
    for place, cell in enumerate(cells):
        strip.paste(cell, (place * (width + _GAP), 0))
    stream = io.BytesIO()
    strip.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def in_colours(pixels: Tensor) -> Tensor:
    """An image (C, H, W), uint8, in three channels: grey as grey, of two their mean, of more the first three."""
    if len(pixels) == 2:
        pixels = pixels.float().mean(0, keepdim=True).byte()
    return pixels[:3].expand(3, -1, -1)
