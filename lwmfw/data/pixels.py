"""What a file's pixels are: 8 bits of RGB, pasted on a background where they are transparent, and upright.

Files of up to 8 bits a channel are taken as they are. Deeper ones, grey always, and floats are scaled from the range of
values that their set has (`settled_values`), or else from what the file itself says and holds.

Metadata never decide whether pixels count: an EXIF that cannot be read turns nothing, and a PNG that is refused for its
texts or profiles is read without them.
"""

from __future__ import annotations

import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageColor
from PIL.Image import DecompressionBombError, DecompressionBombWarning, Transpose

from lwmfw.data.claims import check_claims, recognised
from lwmfw.data.workers import in_workers
from lwmfw.errors import UserError, shown

MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
CHUNK = 64  # files that a worker takes at a time where no batch size is given

_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What puts an image upright, by its EXIF orientation."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_BITS, _FORMAT, _LARGEST, _SIGNED = 258, 339, 281, 2  # tags of a TIFF, and the format of signed integers
_DEPTHS = (8, 10, 12, 14, 16, 24)
_TOLERANCE = 1e-4  # of a range of floats, for what rounding and resizing leave beyond it


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        background: the colour that shows through, by a name or code that Pillow knows.
        values: of files of more than 8 bits a channel, which become black and white; (): as each file has them.
        max_pixels: of a file, as it is decoded.
    """

    background: str = "white"
    values: tuple[float, ...] = ()
    max_pixels: int = MAX_PIXELS


USUAL = Reading()


class Span(NamedTuple):
    """The values of a file that is deeper than 8 bits.

    Attributes:
        full: the largest integer that the file can hold by what it says of itself; 0: it holds floats.
        low: the smallest value in it, NaN if there is one.
        high: the largest.
    """

    full: int
    low: float
    high: float


@contextmanager
def opened(path: str, limit: int) -> Iterator[Image.Image]:
    """An image file of at most so many pixels. They are loaded, so that Pillow has turned what it turns itself (TIFF);
    only those of a JPEG are not, which can be drafted."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("is no regular file")  # a pipe would be waited for
    with warnings.catch_warnings(), open(path, "rb") as stream:
        warnings.simplefilter("ignore")  # remarks on odd files that can be read
        warnings.simplefilter("error", DecompressionBombWarning)
        start = stream.read(25)
        stream.seek(0)
        with _limited(None if start.startswith(_JPEG) else limit):
            try:
                file = _loaded(stream, limit)
            except (DecompressionBombError, DecompressionBombWarning) as error:
                raise ValueError(f"more pixels than data.max_pixels = {limit}") from error
            except Exception:
                if not start.startswith(_PNG):
                    raise
                stream.seek(0)
                file = _loaded(io.BytesIO(_bare(stream.read())), limit)
            with file:
                if start.startswith(_PNG):
                    _clear_in_eight_bits(file, start[24])
                yield file


@contextmanager
def _limited(pixels: int | None) -> Iterator[None]:
    """Pillow's limit, which is the process's, set for a while; None: none."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _loaded(stream: IO[bytes], limit: int) -> Image.Image:
    file = recognised(stream)
    check_claims(file, stream, limit)
    if file.format not in ("JPEG", "MPO"):
        file.load()
    return file


def _bare(png: bytes) -> bytes:
    """A PNG with the chunks that its pixels are made of, and an EXIF that is whole."""
    kept, place = [_PNG], len(_PNG)
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        kind, whole = png[place + 4 : place + 8], png[place:end]
        sound = kind == b"eXIf" and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        if kind in _OF_PIXELS or sound:
            kept.append(whole)
        place = end
    return b"".join(kept)


def _clear_in_eight_bits(png: Image.Image, depth: int) -> None:
    """The colour that is transparent, which a PNG gives in its own depth, as Pillow gives pixels."""
    clear = png.info.get("transparency")
    if png.mode in ("1", "L") and isinstance(clear, int) and depth < 8:
        png.info["transparency"] = min(clear, 2**depth - 1) * 255 // (2**depth - 1)
    elif png.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        png.info["transparency"] = tuple(value >> 8 for value in clear)


def draft(file: Image.Image, width: int, height: int, limit: int) -> None:
    """Have a JPEG decoded at a fraction that keeps a width and height, or a smaller one where it has to.

    Raises:
        ValueError: it has more pixels than the limit all the same.
    """
    across, down = file.size
    least = next((by for by in (1, 2, 4, 8) if math.ceil(across / by) * math.ceil(down / by) <= limit), 8)
    if least > 1:
        width, height = min(width, across // least), min(height, down // least)
    file.draft("RGB", (max(1, width), max(1, height)))
    if file.width * file.height > limit:
        raise ValueError(f"{across} x {down} pixels, more than data.max_pixels = {limit}")


def upright(image: Image.Image, file: Image.Image) -> Image.Image:
    """An image turned as the file it was made of says."""
    try:
        turn = _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # of any kind, as Pillow raises for an EXIF that is none
        return image
    return image if turn is None else image.transpose(turn)


def rgb(file: Image.Image, reading: Reading) -> Image.Image:
    """A file's pixels in 8 bits of RGB.

    Raises:
        ValueError: they have another range of values than can be shown.
    """
    image = _in_eight_bits(file, reading.values) if is_deep(file) else file
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("LA") if image.mode == "La" else image
    ground = Image.new("RGBA", image.size, ImageColor.getrgb(reading.background)[:3])
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def is_deep(file: Image.Image) -> bool:
    """Whether it has more than 8 bits, grey or float."""
    return file.mode.startswith(("I", "F"))


def _in_eight_bits(file: Image.Image, given: Sequence[float]) -> Image.Image:
    values, clear = _values(file), file.info.get("transparency")
    black, white = given_range(_span(file, values), given)
    scaled = (values.astype(np.float64) - black) * (255 / (white - black))
    image = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if isinstance(clear, int):
        image.putalpha(Image.fromarray((values != clear).astype(np.uint8) * 255))
    return image


def _values(file: Image.Image) -> np.ndarray:
    if file.mode == "F":
        return np.asarray(file)
    values = np.asarray(file.convert("I"))
    return values.view(np.uint32) if _full(file) > 2**31 else values  # which Pillow reads as if they were signed


def _full(file: Image.Image) -> int:
    """The largest integer that a file can hold, by what it says of itself."""
    tags = getattr(file, "tag_v2", None)
    if tags is None:
        return 65535  # PNG, and PGM, whose own maximum Pillow scales to that
    bits, signed = tags.get(_BITS, (16,))[0], tags.get(_FORMAT, (1,))[0] == _SIGNED
    full, largest = int(2 ** (bits - signed) - 1), tags.get(_LARGEST) or 0
    largest = max(largest) if isinstance(largest, tuple) else largest
    return int(largest) if 255 <= largest < full else full


def _span(file: Image.Image, values: np.ndarray) -> Span:
    return Span(0 if file.mode == "F" else _full(file), float(values.min()), float(values.max()))


def span(path: str, limit: int) -> Span | None:
    """The values of a file; None: it has at most 8 bits, or cannot be read."""
    try:
        with warnings.catch_warnings(), open(path, "rb") as stream, _limited(None):
            warnings.simplefilter("ignore")
            with recognised(stream) as header:
                if not is_deep(header):
                    return None
        with opened(path, limit) as file:
            return _span(file, _values(file))
    except Exception:  # of any kind, as Pillow raises for damaged files
        return None


def given_range(found: Span, given: Sequence[float]) -> tuple[float, float]:
    """The values that become black and white in a file, those given or its own.

    Raises:
        ValueError: the file has others.
    """
    low, high = f"{found.low:.6g}", f"{found.high:.6g}"
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        raise ValueError(f"values from {low} to {high}, which are no picture")
    if not given:
        return own_range(found)
    black, white = given
    slack = 0 if found.full else _TOLERANCE * (white - black)
    if not black - slack <= found.low <= found.high <= white + slack:
        raise ValueError(f"values from {low} to {high}, outside data.values = [{black:g}, {white:g}]")
    return black, white


def own_range(found: Span) -> tuple[float, float]:
    """The values that become black and white, by what is found in a file or a set.

    Floats are in 0..1 or in 0..255. Integers have the depth that the file says; where the two highest of its bits are
    empty, they have the smallest depth in use that holds them: 12 bits in 16, or 8 in 32.

    Raises:
        ValueError: other floats, or negative integers.
    """
    low, high = found.low, found.high
    if found.full:
        if low < 0 or high > found.full:
            raise ValueError(f"integers from {low:g} to {high:g}, not within 0..{found.full}; data.values says which")
        depths = (2**bits - 1 for bits in _DEPTHS)
        return 0, next((top for top in depths if high <= top), found.full) if 4 * high <= found.full else found.full
    for white in (1, 255):
        if -_TOLERANCE * white <= low and high <= white * (1 + _TOLERANCE):
            return 0, white
    raise ValueError(f"floats from {low:.6g} to {high:.6g}, neither 0..1 nor 0..255; data.values says which")


@dataclass(frozen=True)
class _Spans:
    """The values of each file of a batch, in a worker."""

    limit: int

    def __call__(self, paths: Sequence[str]) -> list[Span | None]:
        return [span(path, self.limit) for path in paths]


def settled_values(paths: Sequence[str], reading: Reading) -> tuple[float, ...]:
    """The values that become black and white in all files of a set; (): none has more than 8 bits, or they are given.

    Raises:
        UserError: there is no range that is all files'.
    """
    able = [path for path in paths if not path.lower().endswith((".jpg", ".jpeg"))]
    batches = [able[first : first + CHUNK] for first in range(0, len(able), CHUNK)]
    ranges: dict[tuple[float, float], str] = {}
    kinds: dict[int, list[tuple[str, Span]]] = {}
    for batch, spans in in_workers(_Spans(reading.max_pixels), [] if reading.values else batches, len(batches)):
        for path, found in zip(batch, spans, strict=True):
            if found:
                kinds.setdefault(found.full, []).append((path, found))
    for full, files in kinds.items():
        whole = Span(full, min(each.low for _, each in files), max(each.high for _, each in files))
        path = shown(max(files, key=lambda file: file[1].high)[0], 1000)
        try:
            ranges[given_range(whole, ())] = path
        except ValueError as error:
            raise UserError(f"{path} and others of its set: {error}; convert them, or set data.values") from error
    if len(ranges) > 1:
        each = " and ".join(f"{low:g}..{high:g} ({path})" for (low, high), path in ranges.items())
        raise UserError(f"data: files have values of {each}; convert them to one kind, or set data.values")
    return next(iter(ranges), ())


def only_flat(paths: Sequence[str], reading: Reading) -> bool:
    """Whether every image that can be read is of one single value; looks at no more of them than it has to."""
    seen = 0
    for path in paths:
        values = _extremes(path, reading)
        if values > 1:
            return False
        seen += values
    return seen > 0


def _extremes(path: str, reading: Reading) -> int:
    """How many values the darkest and brightest of an image are; 0: it cannot be read, which is told elsewhere."""
    try:
        with opened(path, reading.max_pixels) as file:
            draft(file, 64, 64, reading.max_pixels)
            pixels = np.asarray(rgb(file, reading))
            return len({int(pixels.min()), int(pixels.max())})
    except Exception:  # of any kind, as Pillow raises for damaged files
        return 0
