"""Residual networks of two-layer blocks (He et al., CVPR 2016), as plain PyTorch.

A stem, then stages of blocks; every stage after the first halves the resolution. `ResNet` is section 4.2's for small
images: three stages, shortcuts without parameters (option A: every second position, new channels zero); 6n+2 layers
with the classifier. `ResNet18` is section 4.1's: four stages of two blocks, 1x1 convolutions as shortcuts where the
shape changes (option B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import pad

from lwmfw import Features


def conv_norm(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution and BatchNorm; a Sequential, so that a frozen copy can fold one into the other."""
    return nn.Sequential(nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))


class Block(nn.Module):
    """Two convolutions beside a shortcut; the result is the sum, before its ReLU."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(channels, out, stride), nn.ReLU(inplace=True), conv_norm(out, out))
        self.stride, self.added = stride, out - channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H/stride, W/stride)."""
        return self.body(x) + self.shortcut(x)  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the result, without parameters."""
        x = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        return pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x


class ProjectedBlock(Block):
    """A block whose shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(channels, out, stride)
        self.projection = conv_norm(channels, out, stride, size=1) if stride > 1 or self.added else nn.Identity()

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the result."""
        return self.projection(x)  # type: ignore[no-any-return]


def stage(block: type[Block], channels: int, out: int, blocks: int, stride: int) -> nn.ModuleList:
    """Blocks of one resolution; the first one changes width and resolution."""
    return nn.ModuleList([block(channels, out, stride), *(block(out, out, 1) for _ in range(blocks - 1))])


class ResidualNetwork(nn.Module):
    """A stem and stages of so many blocks and so many channels, then the spatial mean as features."""

    def __init__(self, stem: nn.Sequential, block: type[Block], blocks: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        before = [widths[0], *widths]
        self.stages = nn.ModuleList(
            [stage(block, before[n], width, blocks, stride=2 if n else 1) for n, width in enumerate(widths)]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Features:
        """Features and the ends of the stages, with and without their last ReLU."""
        x = self.stem(images)
        maps, raw_maps = [], []
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                raw = block(x)
                x = raw.relu()
            maps.append(x)
            raw_maps.append(raw)
        return Features(x.mean((2, 3)), maps, raw_maps, x)


class ResNet(ResidualNetwork):
    """The body of a CIFAR ResNet: three stages, features (B, 4*width)."""

    def __init__(self, channels: int, blocks: int, width: int) -> None:
        stem = nn.Sequential(*conv_norm(channels, width), nn.ReLU(inplace=True))
        super().__init__(stem, Block, blocks, [width, 2 * width, 4 * width])


class ResNet18(ResidualNetwork):
    """The body of ResNet-18: four stages of two blocks, features (B, 512)."""

    def __init__(self, channels: int, stem: Literal["small", "large"]) -> None:
        small = stem == "small"
        first = conv_norm(channels, 64) if small else conv_norm(channels, 64, stride=2, size=7)
        pool = [] if small else [nn.MaxPool2d(3, 2, 1)]
        super().__init__(nn.Sequential(*first, nn.ReLU(inplace=True), *pool), ProjectedBlock, 2, [64, 128, 256, 512])
