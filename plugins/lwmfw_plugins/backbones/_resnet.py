"""Residual networks of two-layer blocks (He et al., CVPR 2016), as plain PyTorch.

A stem, then stages of blocks, then the spatial mean as features. `ResNet` is section 4.2's for small images: three
stages of 2n layers, 6n+2 with stem and classifier; shortcuts without parameters (option A: every second position, new
channels zero) or 1x1 convolutions where the shape changes (option B). `ResNet18` is section 4.1's: four stages of two
blocks, shortcuts of option B. `PodNet32` and `Thesis32` are the two that PODNet and its variants are measured with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from lwmfw import Features


def conv_norm(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution and BatchNorm; a Sequential, so that a frozen copy can fold one into the other."""
    return nn.Sequential(nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))


class Block(nn.Module):
    """Two convolutions beside a shortcut; the result is the sum, before its ReLU.

    Attributes:
        body: the branch beside the shortcut; a gate can be appended.
        channels: of the result.
        relu: whether a ReLU follows the addition.
    """

    relu = True

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(channels, out, stride), nn.ReLU(inplace=True), conv_norm(out, out))
        self.channels, self.stride, self.added = out, stride, out - channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H/stride, W/stride)."""
        return self.body(x).add_(self.shortcut(x))  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the result, without parameters."""
        # the mean of one position is that position; unlike a slice's, its gradient comes back channels-last
        x = avg_pool2d(x, 1, self.stride) if self.stride > 1 else x
        return pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x


class ProjectedBlock(Block):
    """A block whose shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(channels, out, stride)
        self.projection = conv_norm(channels, out, stride, size=1) if stride > 1 or self.added else nn.Identity()

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the result."""
        return self.projection(x)  # type: ignore[no-any-return]


class BareBlock(Block):
    """A block whose sum goes on as it is."""

    relu = False


class Stage(NamedTuple):
    """Blocks of one width and resolution; the first of them has the stride."""

    blocks: int
    channels: int
    stride: int


class ResidualNetwork(nn.Module):
    """A stem with the width of the first stage, the stages, then the spatial mean as features.

    Args:
        stem: images to the input of the first stage.
        block: what the stages are made of.
        stages: from the images to the features.
        final_relu: False leaves out the ReLU after the last addition, so that features can be negative.
    """

    def __init__(
        self, stem: nn.Sequential, block: type[Block], stages: Sequence[Stage], *, final_relu: bool = True
    ) -> None:
        super().__init__()
        self.stem, self.stages, before = stem, nn.ModuleList(), stages[0].channels
        for blocks, channels, stride in stages:
            others = (block(channels, channels, 1) for _ in range(blocks - 1))
            self.stages.append(nn.ModuleList([block(before, channels, stride), *others]))
            before = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if not final_relu:
            *_, last = self.blocks()
            last.relu = False

    def blocks(self) -> Iterator[Block]:
        """All blocks, from the images to the features."""
        return (block for stage in self.stages for block in stage)  # type: ignore[attr-defined]

    def silence_branches(self) -> None:
        """Let every block begin as its shortcut: the factors of its second BatchNorm become zero."""
        for block in self.blocks():
            nn.init.zeros_(block.body[2][1].weight)  # type: ignore[index]

    def forward(self, images: Tensor) -> Features:
        """Features and the ends of the stages, with and without their last ReLU."""
        x = self.stem(images)
        maps, raw_maps = [], []
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                x = raw = block(x)
                if block.relu:
                    # only the last sum of a stage is kept beside its ReLU
                    x = raw.relu() if block is blocks[-1] else raw.relu_()  # type: ignore[index]
            maps.append(x)
            raw_maps.append(raw)
        return Features(x.mean((2, 3)), maps, raw_maps, x)


def small_stem(channels: int, width: int) -> nn.Sequential:
    """A 3x3 convolution that keeps the resolution."""
    return nn.Sequential(*conv_norm(channels, width), nn.ReLU(inplace=True))


class ResNet(ResidualNetwork):
    """The body of a CIFAR ResNet: three stages, features (B, 4*width)."""

    def __init__(
        self, channels: int, blocks: int, width: int, *, final_relu: bool = True, projected: bool = False
    ) -> None:
        stages = [Stage(blocks, width, 1), Stage(blocks, 2 * width, 2), Stage(blocks, 4 * width, 2)]
        block = ProjectedBlock if projected else Block
        super().__init__(small_stem(channels, width), block, stages, final_relu=final_relu)


class PodNet32(ResidualNetwork):
    """ResNet-32 as PODNet's code has it: the last block counts as a fourth stage, no ReLU follows an addition.

    Every block begins as its shortcut. Features (B, 4*width) can be negative, and maps are raw maps.
    """

    def __init__(self, channels: int, width: int) -> None:
        stages = [Stage(5, width, 1), Stage(5, 2 * width, 2), Stage(4, 4 * width, 2), Stage(1, 4 * width, 1)]
        super().__init__(small_stem(channels, width), BareBlock, stages)
        self.silence_branches()


class Thesis32(ResidualNetwork):
    """Four stages of 5, 4, 3 and 2 blocks behind a max-pooling, features (B, 8*width).

    Every block begins as its shortcut, which is a 1x1 convolution where the shape changes.
    """

    def __init__(self, channels: int, width: int, *, final_relu: bool = True, inner_relu: bool = True) -> None:
        stem = small_stem(channels, width).append(nn.MaxPool2d(3, 2, 1))
        stages = [Stage(5, width, 1), Stage(4, 2 * width, 2), Stage(3, 4 * width, 2), Stage(2, 8 * width, 2)]
        super().__init__(stem, ProjectedBlock, stages, final_relu=final_relu)
        if not inner_relu:
            *before, _ = [block for stage in self.stages for block in stage[1:]]  # type: ignore[index]
            for block in before:
                block.relu = False
        self.silence_branches()


class ResNet18(ResidualNetwork):
    """The body of ResNet-18: four stages of two blocks, features (B, 512)."""

    def __init__(self, channels: int, stem: Literal["small", "large"], *, final_relu: bool = True) -> None:
        if stem == "small":
            first = small_stem(channels, 64)
        else:
            first = nn.Sequential(*conv_norm(channels, 64, 2, 7), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages = [Stage(2, 64, 1), Stage(2, 128, 2), Stage(2, 256, 2), Stage(2, 512, 2)]
        super().__init__(first, ProjectedBlock, stages, final_relu=final_relu)
