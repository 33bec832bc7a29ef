"""What mecil stores of an image: principal components of its blocks in a few bits each, or the image at a lower
resolution.

Shapes: N images of C channels, H and W height and width; P blocks of an image, D = C b b values of a block, K kept
coefficients. Functions compute on the device and in the precision of what they are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

CENTRE = 128.0  # grey, which blocks are taken relative to
_MOST_BITS = 8
_LEAST_RANGE = 0.01  # of a component that the images do not have


class Transform(Protocol):
    """Images to what is stored of them, and back.

    `encode` takes floating images (N, C, H, W) within 0..255 and returns uint8 (N, bytes); `decode` returns images that
    are neither rounded nor clamped; `lossy` is one after the other, without the bytes. `tensors` is what it takes to
    read old bytes, `bytes_of` how many an image has, `to` the same on a device and in a precision.
    """

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, stored: Tensor, shape: Sequence[int]) -> Tensor: ...

    def lossy(self, images: Tensor) -> Tensor: ...

    def bytes_of(self, shape: Sequence[int]) -> int: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Transform: ...


# blocks


def blocks_of(images: Tensor, block: int) -> Tensor:
    """Images (N, C, H, W) cut into blocks (N, P, D); what a whole block lacks repeats the last row and column."""
    count, channels, height, width = images.shape
    whole = pad(images, (0, -width % block, 0, -height % block), mode="replicate")
    down, across = whole.shape[2] // block, whole.shape[3] // block
    cut = whole.reshape(count, channels, down, block, across, block)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * block**2)


def images_of(blocks: Tensor, block: int, shape: Sequence[int]) -> Tensor:
    """The inverse of `blocks_of` for images of a shape (C, H, W)."""
    channels, height, width = shape
    down, across = math.ceil(height / block), math.ceil(width / block)
    cut = blocks.view(len(blocks), down, across, channels, block, block).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(len(blocks), channels, down * block, across * block)[..., :height, :width]


# which coefficients, and in how many bits


def principal_components(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of blocks (M, D), relative to CENTRE: orthonormal directions (D, D), in rows, and their second moments (D,)."""
    relative = blocks - CENTRE
    moments, directions = torch.linalg.eigh(relative.T @ relative / len(relative))
    return directions.flip(1).T, moments.flip(0)


def before_any_image(channels: int, block: int) -> tuple[Tensor, Tensor]:
    """What stands for `principal_components` until there are images: the DCT, and moments of made-up images.

    Neighbouring pixels of those have a correlation of 0.95, for which the DCT is close to the principal components;
    channels are taken apart.
    """
    place = torch.arange(block, dtype=torch.float64)
    dct = torch.cos(math.pi / block * (place + 0.5) * place[:, None]) * (2 / block) ** 0.5
    dct[0] /= 2**0.5
    correlations = 0.95 ** (place - place[:, None]).abs()
    along = (dct @ correlations @ dct.T).diagonal()
    moments = 64.0**2 * torch.outer(along, along).flatten()
    return torch.kron(torch.eye(channels, dtype=torch.float64), torch.kron(dct, dct)), moments.repeat(channels)


def share_bits(moments: Tensor, bits: int) -> Tensor:
    """How many bits each coefficient gets (D,), int64, 0 to 8, of so many for all.

    One bit after another goes where most is left to gain. A bit leaves about a third of the squared error that a
    uniform quantiser makes with a Laplacian coefficient: 1, .50, .20, .072, .025, .0086, ... of its moment.

    Args:
        moments: (D,), mean squares of the coefficients.
        bits: no more than 8 D.
    """
    gains = moments[:, None] / 3.0 ** torch.arange(_MOST_BITS, dtype=moments.dtype)
    chosen = gains.flatten().sort(descending=True, stable=True).indices[:bits]
    return torch.bincount(chosen // _MOST_BITS, minlength=len(moments))


def ranges_of(moments: Tensor, bits: Tensor, directions: Tensor) -> Tensor:
    """Where the quantiser of each coefficient ends, at both sides of 0, (K,).

    (0.6 + 0.8 bits) standard deviations are within 2 % of the range of least squared error for a Laplacian
    coefficient, or as far as a block of bytes can reach at all, if that is nearer.
    """
    laplacian = (0.6 + 0.8 * bits) * moments.clamp(min=0).sqrt()
    return torch.minimum(laplacian, CENTRE * directions.abs().sum(1)).clamp(min=_LEAST_RANGE)


def quantised(values: Tensor, ranges: Tensor, bits: Tensor) -> Tensor:
    """The number, from 0 to 2**bits - 1, of the cell that each value (..., K) is in, uint8."""
    cells = 2.0**bits
    return ((values / ranges + 1) / 2 * cells).floor().clamp(min=0).minimum(cells - 1).to(torch.uint8)


def dequantised(codes: Tensor, ranges: Tensor, bits: Tensor) -> Tensor:
    """The middles of cells (..., K)."""
    return ((codes + 0.5) / 2.0**bits * 2 - 1) * ranges


def _places(bits: Tensor) -> tuple[Tensor, Tensor]:
    """For every bit of a block, of which coefficient it is and by how much it is shifted; the highest come first."""
    which = torch.arange(len(bits), device=bits.device).repeat_interleave(bits)
    ends = bits.cumsum(0)[which]
    return which, ends - 1 - torch.arange(len(which), device=bits.device)


def packed(codes: Tensor, bits: Tensor) -> Tensor:
    """Codes (N, P, K), each in its bits, without gaps: (N, P * sum(bits) / 8), uint8; the sum is a multiple of 8."""
    which, shifts = _places(bits)
    ones = (codes[..., which].long() >> shifts) & 1
    octets = ones.view(len(codes), -1, 8) << torch.arange(7, -1, -1, device=codes.device)
    return octets.sum(2).to(torch.uint8)


def unpacked(stored: Tensor, bits: Tensor) -> Tensor:
    """The inverse of `packed`: (N, P, K), int64."""
    which, shifts = _places(bits)
    ones = (stored[..., None].long() >> torch.arange(7, -1, -1, device=stored.device)) & 1
    ones = ones.view(len(stored), -1, len(which)) << shifts
    return ones.new_zeros(*ones.shape[:2], len(bits)).index_add_(2, which, ones)


@dataclass(frozen=True)
class Blocks:
    """Principal components of blocks.

    Attributes:
        block: its side in pixels, b.
        directions: (K, D), of the kept coefficients.
        ranges: (K,), of their quantisers.
        bits: (K,), uint8, that each has.
    """

    block: int
    directions: Tensor
    ranges: Tensor
    bits: Tensor

    @classmethod
    def keeping(cls, size: int, block: int, directions: Tensor, moments: Tensor) -> Blocks:
        """Those coefficients of all (D, D) that are worth a bit where a block may have `size` bytes."""
        bits = share_bits(moments, 8 * min(size, len(moments)))
        kept = bits > 0
        directions, bits = directions[kept], bits[kept]
        ranges = ranges_of(moments[kept], bits, directions)
        return cls(block, directions.half(), ranges.half(), bits.to(torch.uint8))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it takes to read old bytes."""
        return {"directions": self.directions, "ranges": self.ranges, "bits": self.bits}

    def bytes_of(self, shape: Sequence[int]) -> int:
        """Bytes of an image of a shape (C, H, W)."""
        _, height, width = shape
        return math.ceil(height / self.block) * math.ceil(width / self.block) * int(self.bits.sum()) // 8

    def encode(self, images: Tensor) -> Tensor:
        """Floating images (N, C, H, W) -> (N, bytes), uint8."""
        return packed(self._codes(images), self.bits.long())

    def decode(self, stored: Tensor, shape: Sequence[int]) -> Tensor:
        """The images (N, C, H, W) of stored bytes, in the precision of `directions` and `ranges`."""
        return self._images(unpacked(stored, self.bits.long()), shape)

    def lossy(self, images: Tensor) -> Tensor:
        """What `decode` would make of images."""
        return self._images(self._codes(images), images.shape[1:])

    def _codes(self, images: Tensor) -> Tensor:
        return quantised((blocks_of(images, self.block) - CENTRE) @ self.directions.T, self.ranges, self.bits)

    def _images(self, codes: Tensor, shape: Sequence[int]) -> Tensor:
        blocks = dequantised(codes, self.ranges, self.bits) @ self.directions + CENTRE
        return images_of(blocks, self.block, shape)

    def to(self, device: torch.device, dtype: torch.dtype) -> Blocks:
        """The same on a device and in a precision."""
        directions, ranges = self.directions.to(device, dtype), self.ranges.to(device, dtype)
        return replace(self, directions=directions, ranges=ranges, bits=self.bits.to(device))


# lower resolution


@dataclass(frozen=True)
class Downsampled:
    """Means of squares of pixels, a byte each; bicubic interpolation between them.

    Attributes:
        scale: side of the squares in pixels.
    """

    scale: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Nothing is needed to read old bytes."""
        return {}

    def _small(self, shape: Sequence[int]) -> tuple[int, int]:
        _, height, width = shape
        return math.ceil(height / self.scale), math.ceil(width / self.scale)

    def bytes_of(self, shape: Sequence[int]) -> int:
        """Bytes of an image of a shape (C, H, W)."""
        return shape[0] * math.prod(self._small(shape))

    def encode(self, images: Tensor) -> Tensor:
        """Floating images (N, C, H, W) -> (N, bytes), uint8."""
        return self._means(images).to(torch.uint8).flatten(1)

    def decode(self, stored: Tensor, shape: Sequence[int]) -> Tensor:
        """The images (N, C, H, W) of stored bytes, in float64."""
        return self._between(stored.double().view(len(stored), shape[0], *self._small(shape)), shape)

    def lossy(self, images: Tensor) -> Tensor:
        """What `decode` would make of images, in their precision."""
        return self._between(self._means(images), images.shape[1:])

    def _means(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, self._small(images.shape[1:])).round()

    def _between(self, means: Tensor, shape: Sequence[int]) -> Tensor:
        return interpolate(means, tuple(shape[1:]), mode="bicubic", align_corners=False)

    def to(self, device: torch.device, dtype: torch.dtype) -> Downsampled:
        """The same: it has nothing that lies anywhere."""
        return self
