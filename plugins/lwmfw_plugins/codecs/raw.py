"""raw: exemplars as plain pixels, a byte for each channel of each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lwmfw import Codec, Component, Options, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class Raw:
    """Plain pixels, lossless and uncompressed."""

    def __init__(self, options: Options) -> None:
        pass

    def encode(self, pixels: Tensor) -> list[bytes]:
        """The bytes of images (N, C, H, W), uint8."""
        return [image.tobytes() for image in pixels.numpy()]

    def decode(self, encoded: Sequence[bytes], shape: tuple[int, int, int]) -> Tensor:
        """The inverse: (N, C, H, W)."""
        import numpy as np
        import torch

        return torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy()).view(len(encoded), *shape)

    def shared_bytes(self, shape: tuple[int, int, int]) -> int:
        """Nothing is shared."""
        return 0


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Codec("raw", Raw)
