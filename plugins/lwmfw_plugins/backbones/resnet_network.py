"""The residual network for small images (He et al., CVPR 2016, section 4.2), as plain PyTorch.

A 3x3 convolution, then three stages of n blocks with width, 2*width and 4*width channels; 6n+2 layers with the
classifier. Shortcuts have no parameters (option A): every second position, new channels zero.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from lwmfw import Features


def conv_norm(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and BatchNorm; a Sequential, so that a frozen copy can fold one into the other."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))


class Block(nn.Module):
    """Two convolutions beside a shortcut; the result is the sum, before its ReLU."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(channels, out, stride), nn.ReLU(inplace=True), conv_norm(out, out))
        self.stride, self.added = stride, out - channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H/stride, W/stride)."""
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.added:
            shortcut = pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return self.body(x) + shortcut  # type: ignore[no-any-return]


def stage(channels: int, out: int, blocks: int, stride: int) -> nn.ModuleList:
    """Blocks of one resolution; the first one changes width and resolution."""
    return nn.ModuleList([Block(channels, out, stride), *(Block(out, out, 1) for _ in range(blocks - 1))])


class ResNet(nn.Module):
    """The body of a CIFAR ResNet: three stages, then the spatial mean as features (B, 4*width)."""

    def __init__(self, channels: int, blocks: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, width), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            [
                stage(width, width, blocks, stride=1),
                stage(width, 2 * width, blocks, stride=2),
                stage(2 * width, 4 * width, blocks, stride=2),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Features:
        """Features and the ends of the three stages, with and without their last ReLU."""
        x = self.stem(images)
        maps, raw_maps = [], []
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                raw = block(x)
                x = raw.relu()
            maps.append(x)
            raw_maps.append(raw)
        return Features(x.mean((2, 3)), maps, raw_maps, x)
