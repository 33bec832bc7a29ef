"""Images in files to batches: decoded, cut and resized in worker processes, so that memory holds a few batches only.

What becomes of a file depends on the file, the view and a seed that comes with it, and not on the process that decodes
it: how many workers there are and how they start (workers.py) is the machine's affair and changes no bit. What a worker
cannot do - its codec did not reach it, or failed - the main process does itself, where an error can name its provider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose
from torch import Tensor

from lwmfw.data.images import ImageFiles, Images, StoredImage
from lwmfw.data.pixels import CHUNK, MAX_PIXELS, USUAL, Reading, draft, opened, rgb, upright
from lwmfw.data.room import check_room
from lwmfw.data.workers import Carried, in_workers
from lwmfw.errors import RunFailed, UserError, one_line, shown

Box = tuple[float, float, float, float]
Item = tuple[str | StoredImage, int]
"""A file or an exemplar, and the seed of how it is shown."""


@dataclass(frozen=True)
class View:
    """How a file becomes an image.

    Attributes:
        size: height and width of the image.
        resize: what the shorter side becomes before the centre is cut out; None: a random part is shown.
        flip: whether the image is mirrored at random; only where a random part is shown.
        codec: decodes exemplars, in a process that it can reach.
        channels: 3, or 1 for grey.
        reading: how a file is read.
    """

    size: int
    resize: int | None
    flip: bool = False
    codec: Carried = field(default_factory=Carried)
    channels: int = 3
    reading: Reading = USUAL

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image that is shown."""
        return self.channels, self.size, self.size

    def show(self, source: str | StoredImage, seed: int) -> Tensor:
        """The image of a file or an exemplar, (channels, size, size), uint8.

        Raises:
            Exception: of any kind, as Pillow raises for damaged files.
        """
        if self.resize:
            share = self.size / self.resize
            return _tensor(self._part(source, lambda width, height: centre_box(width, height, share)))
        rng = torch.Generator().manual_seed(seed)
        image = self._part(source, lambda width, height: random_box(width, height, rng))
        mirrored = self.flip and bool(torch.rand((), generator=rng) < 0.5)
        return _tensor(image.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else image)

    def _part(self, source: str | StoredImage, choose: Callable[[int, int], Box]) -> Image.Image:
        if isinstance(source, str):
            return _in_colours(_read(source, self.size, choose, self.reading), self.channels)
        shape = (self.channels, source.height, source.width)
        pixels = self.codec.content.decode([source.encoded], shape)
        if tuple(pixels.shape) != (1, *shape):
            raise ValueError(f"it became {tuple(pixels.shape)} instead of {(1, *shape)}")
        image = Image.fromarray(pixels[0].permute(1, 2, 0).squeeze(2).numpy())
        return image.resize((self.size, self.size), Resampling.BILINEAR, choose(source.width, source.height))


def centre_box(width: int, height: int, share: float) -> Box:
    """The square in the middle whose side is a share of the shorter side; left, top, right, bottom."""
    half = min(width, height) * share / 2
    return width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half


def random_box(width: int, height: int, rng: torch.Generator) -> Box:
    """A part of 8 % to all of the area with sides from 3:4 to 4:3, as torchvision's RandomResizedCrop draws it.

    Where ten draws do not fit into the image, the largest part in its middle with such sides.
    """
    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(0.08, 1, generator=rng).item()
        ratio = torch.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3), generator=rng)).item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (1,), generator=rng))
            left = int(torch.randint(0, width - w + 1, (1,), generator=rng))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _read(path: str, size: int, choose: Callable[[int, int], Box], reading: Reading) -> Image.Image:
    """Part of an image as an upright square of RGB.

    The part is chosen in the file's own orientation, and only the small square is turned.
    """
    with opened(path, reading.max_pixels) as file:
        width, height = file.size
        left, top, right, bottom = choose(width, height)
        # a JPEG is decoded at a fraction of its size as long as the part keeps `size` pixels a side
        shrink = max(1.0, min(right - left, bottom - top) / size)
        draft(file, math.ceil(width / shrink), math.ceil(height / shrink), reading.max_pixels)
        pixels = rgb(file, reading)
        x, y = pixels.width / width, pixels.height / height
        square = pixels.resize((size, size), Resampling.BILINEAR, (left * x, top * y, right * x, bottom * y))
        return upright(square, file)


def _whole(path: str, resize: int, reading: Reading) -> Image.Image:
    """An upright image whose shorter side has so many pixels; smaller ones stay as they are."""
    with opened(path, reading.max_pixels) as file:
        share = min(1.0, resize / min(file.size))
        width, height = (max(1, round(side * share)) for side in file.size)
        draft(file, width, height, reading.max_pixels)
        return upright(rgb(file, reading).resize((width, height), Resampling.BILINEAR), file)


def _in_colours(image: Image.Image, channels: int) -> Image.Image:
    return image.convert("L") if channels == 1 else image


def _tensor(image: Image.Image) -> Tensor:
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, -1).permute(2, 0, 1)


@dataclass(frozen=True)
class _Decode:
    """Shows a batch of files; returns images (B, C, size, size), and why some could not be shown, by position."""

    view: View

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, dict[int, str]]:
        images, failures = torch.zeros(len(items), *self.view.shape, dtype=torch.uint8), {}
        for place, (source, seed) in enumerate(items):
            try:
                images[place] = self.view.show(source, seed)
            except (Exception, SystemExit) as error:  # of any kind, as a codec raises
                failures[place] = _reason(error)
        return images, failures


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text is the path again
        return "no image of a known format"
    return shown(one_line(error)) or type(error).__name__


@dataclass(frozen=True)
class _Examine:
    """The unreadable among files and why, without sending pixels home."""

    reading: Reading

    def __call__(self, items: Sequence[Item]) -> dict[str, str]:
        failures = _Decode(View(size=8, resize=8, reading=self.reading))(items)[1]
        return {str(items[place][0]): reason for place, reason in failures.items()}


def decoded_batches(
    files: ImageFiles, chosen: Sequence[Tensor], *, seeds: Sequence[Tensor] | None = None, flip: bool = False
) -> Iterator[Tensor]:
    """The images of batches of files, decoded ahead of their use.

    Args:
        files: N files.
        chosen: positions of each batch's files.
        seeds: for each batch (B,), int64, of the random part that is shown; None: the centre is shown.
        flip: whether they are mirrored at random.

    Yields:
        (B, C, size, size), uint8, on the device of the labels.

    Raises:
        UserError: a file cannot be read; names it.
        RunFailed: an exemplar cannot be decoded, or a worker died.
    """
    device = files.labels.device
    resize = files.resize if seeds is None else None
    view = View(files.size, resize, flip, Carried(files.codec), files.channels, files.reading)
    items = (
        [(files.paths[i], seed) for i, seed in zip(index.tolist(), drawn.tolist(), strict=True)]
        for index, drawn in zip(chosen, seeds or [torch.zeros_like(index) for index in chosen], strict=True)
    )
    done = in_workers(_Decode(view), items, len(chosen))
    for index, (batch, (pixels, failures)) in zip(chosen, done, strict=True):
        for place, reason in failures.items():
            source, seed = batch[place]
            if isinstance(source, str):
                raise UserError(f"{source}: cannot be read ({reason}); replace or remove the file")
            pixels[place] = _shown_here(view, source, seed, int(index[place]))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        yield pixels.to(device, non_blocking=True)


def _shown_here(view: View, exemplar: StoredImage, seed: int, number: int) -> Tensor:
    """An exemplar that a worker could not show, shown by the codec of the main process, or the failure in words."""
    try:
        return view.show(exemplar, seed)
    except RunFailed as error:  # it names the codec's provider
        raise RunFailed(f"{error}; memory.codec was decoding exemplar {number}") from error
    except (Exception, SystemExit) as error:
        raise RunFailed(
            f"memory.codec: exemplar {number} cannot be decoded ({_reason(error)}); start the run anew"
        ) from error


def decode_images(files: ImageFiles) -> Images:
    """All images of files in memory, evaluation's view of each; they fit the ordinary augmentation of small images.

    Raises:
        UserError: they do not fit into memory, or a file cannot be read; names it.
    """
    check_room(len(files), (files.channels, files.size, files.size))
    pixels = torch.empty(len(files), files.channels, files.size, files.size, dtype=torch.uint8)
    chosen = torch.arange(len(files)).split(CHUNK)
    for index, part in zip(chosen, decoded_batches(files, chosen), strict=True):
        pixels[index] = part
    return Images(pixels, files.labels, files.reading)


@dataclass(frozen=True)
class _Encode:
    """Encodes whole upright images of files whose shorter side is resized; None for those that it cannot."""

    codec: Carried
    resize: int
    channels: int
    reading: Reading

    def __call__(self, items: Sequence[Item]) -> list[StoredImage | None]:
        return [self._tried(str(path)) for path, _ in items]

    def _tried(self, path: str) -> StoredImage | None:
        try:
            return self.one(path)
        except (Exception, SystemExit):
            return None

    def one(self, path: str) -> StoredImage:
        """The exemplar of a file.

        Raises:
            UserError: it cannot be read; names it.
            Exception: of any kind, as the codec raises.
        """
        try:
            pixels = _tensor(_in_colours(_whole(path, self.resize, self.reading), self.channels))
        except Exception as error:
            raise UserError(f"{path}: cannot be kept ({_reason(error)}); replace or remove the file") from error
        encoded = self.codec.content.encode(pixels[None])
        if not (isinstance(encoded, list) and [type(each) for each in encoded] == [bytes]):
            raise TypeError("a codec returns a list of bytes")  # in a worker; the run's own codec tells whose fault
        return StoredImage(encoded[0], *pixels.shape[1:])


def encoded_files(files: ImageFiles, codec: Any) -> Iterator[StoredImage]:
    """Files as exemplars, in their order.

    Raises:
        UserError: a file cannot be read; names it.
        RunFailed: a worker died.
    """
    encode = _Encode(Carried(codec), files.resize, files.channels, files.reading)
    batches = _chunks(files.paths)
    for batch, done in in_workers(encode, batches, len(batches)):
        for (path, _), stored in zip(batch, done, strict=True):
            yield encode.one(str(path)) if stored is None else stored  # here, where an error names its provider


def unreadable_images(
    paths: Sequence[str], *, values: Sequence[float] = (), max_pixels: int = MAX_PIXELS
) -> dict[str, str]:
    """The files that cannot be decoded to their end, each with the reason, in the order given.

    Args:
        paths: of the files.
        values: as `ImageFiles` has them.
        max_pixels: likewise.
    """
    found: dict[str, str] = {}
    batches = _chunks(paths)
    examine = _Examine(Reading(values=tuple(values), max_pixels=max_pixels))
    for _, part in in_workers(examine, batches, len(batches)):
        found |= part
    return found


def _chunks(paths: Sequence[str | StoredImage]) -> list[list[Item]]:
    items = [(path, 0) for path in paths]
    return [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]
