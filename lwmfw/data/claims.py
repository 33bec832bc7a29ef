"""What an image file claims in its header, held against what it can hold, before anything is allocated for it."""

from __future__ import annotations

import re
from typing import IO

from PIL import Image

from lwmfw.data.listing import FORMATS

_KNOWN = (*FORMATS, "TGA")
"""Formats that are opened, TGA by its suffix alone; Pillow knows others, and hands EPS to another program."""

_PER_BYTE = 512
"""Pixels of a JPEG: each block of 64 takes a bit at least."""
_DEFLATE = 1032
"""Bytes that zlib makes of one at most."""
_MOST_SCANS = 100
"""Of a JPEG, each of which is a pass over all its blocks; encoders write 10 or so."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOS, _EOI, _BARE = 0xDA, 0xD9, (0x01, 0xD8)  # a scan begins, the image ends, and markers without a length


def recognised(stream: IO[bytes]) -> Image.Image:
    """An image of a format that is known by its first bytes, or of TGA; its pixels are not decoded.

    Raises:
        Exception: of any kind, as Pillow raises for what it does not know.
    """
    Image.init()
    return Image.open(stream, formats=[form for form in _KNOWN if form in Image.OPEN])


def check_claims(file: Image.Image, stream: IO[bytes], limit: int) -> None:
    """Refuse a file that would take memory or time beyond its bytes: JPEG and PNG, where these give a bound.

    Args:
        file: as opened; its pixels are not decoded yet.
        stream: that it is read from, where opening has left it.
        limit: pixels of one that has to be decoded whole.

    Raises:
        ValueError: it is one.
    """
    if file.format not in ("JPEG", "MPO", "PNG"):
        return
    place = stream.tell()
    stream.seek(0)
    raw = stream.read()
    stream.seek(place)
    width, height = file.size
    possible = (
        _DEFLATE * len(raw) >= height * (1 + width * raw[24] / 8)
        if file.format == "PNG"
        else (_PER_BYTE * len(raw) >= width * height)
    )
    if not possible:
        raise ValueError(f"claims {width} x {height} pixels, which {len(raw)} bytes cannot hold")
    if file.format != "PNG":
        _check_scans(file, raw, place, limit)


def _check_scans(file: Image.Image, raw: bytes, place: int, limit: int) -> None:
    large, progressive = file.width * file.height > limit, "progressive" in file.info
    if not (large or progressive or raw.count(bytes([0xFF, _SOS])) > _MOST_SCANS):
        return
    scans = _scans(raw, place)
    if scans > _MOST_SCANS:
        raise ValueError(f"has {scans} scans, and {_MOST_SCANS} are read at most")
    if large and (progressive or scans > 1):
        size = f"{file.width} x {file.height}"
        raise ValueError(f"{size} pixels in several scans, decoded whole: more than data.max_pixels = {limit}")


def _scans(raw: bytes, place: int) -> int:
    """How many scans a JPEG has, of which the first begins at a place."""
    count = 1
    while found := _MARKER.search(raw, place):
        place, marker = found.end(), raw[found.end() - 1]
        if marker == _EOI:
            break
        count += marker == _SOS
        if marker not in _BARE:
            place += int.from_bytes(raw[place : place + 2], "big")
    return count
