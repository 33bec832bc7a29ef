"""The IDX format of MNIST and its relatives, plain or gzipped, checked before it is believed."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lwmfw import UserError

if TYPE_CHECKING:
    from torch import Tensor

_UNSIGNED_BYTES = 8


def read_idx(path: Path, sha256: str, limit: int = 64 * 2**20) -> Tensor:
    """The array of an IDX file of unsigned bytes.

    Args:
        path: ending in .gz if gzipped.
        sha256: of the content, unpacked.
        limit: bytes beyond which the file is not unpacked.

    Returns:
        uint8, of the shape the file states.

    Raises:
        UserError: another content than expected; names the file and both digests.
    """
    import torch

    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore the file, whose unpacked sha256 is {sha256}"
        ) from error
    actual = hashlib.sha256(raw).hexdigest()
    if actual != sha256:
        raise UserError(f"{path}: not the published file: sha256 is {actual}, should be {sha256}; restore the file")
    kind, dimensions = struct.unpack_from(">xxBB", raw)
    assert kind == _UNSIGNED_BYTES  # noqa: S101 - the digest has vouched for the content
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * dimensions).view(shape)


def write_idx(array: Tensor) -> bytes:
    """The bytes of an IDX file that holds a uint8 array."""
    return struct.pack(f">xxBB{array.ndim}I", _UNSIGNED_BYTES, array.ndim, *array.shape) + array.numpy().tobytes()
