"""CBAM, the convolutional block attention module (Woo et al., ECCV 2018), as plain PyTorch.

A channel gate, then a spatial gate, each a factor between 0 and 1, at the end of a residual branch: after its second
BatchNorm, before the addition. Two forms, after the code that the numbers in print come from:

- original, the authors': the MLP has biases; a BatchNorm follows the spatial convolution, its factor begins at zero,
  so that every position begins with the same gate; that convolution sees (max, mean).
- light, the port that spread, and the thesis with it: no biases, no BatchNorm, (mean, max).

The thesis' appendix does not run as printed. What is not reproduced: its `max_pool` averages, so that both inputs of
the MLP are the mean; its `ratio` is ignored for 16; it gates the stem and the ends of three stages too, by gates it
never makes, the same for maps of 16, 32 and 64 channels; its stages read a width and its builder weights that no line
defines; it imports modules it has no use for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lwmfw_plugins.backbones._resnet import ResidualNetwork

Form = Literal["original", "light"]


class ChannelGate(nn.Module):
    """sigmoid(MLP(mean) + MLP(max)) over positions, one MLP for both (equation 2)."""

    def __init__(self, channels: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        layers = nn.Linear(channels, hidden, bias=bias), nn.Linear(hidden, channels, bias=bias)
        if bias:
            for layer in layers:
                nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1), each in 0..1."""
        # so that gradients come back channels-last too; max has a cheaper one than amax
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        pooled = torch.stack([rows.mean(1), rows.max(1).values])
        return self.mlp(pooled).sum(0).sigmoid()[..., None, None]  # type: ignore[no-any-return]


class SpatialGate(nn.Module):
    """sigmoid of a 7x7 convolution over the max and the mean of the channels (equation 3)."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.max_first = form == "original"
        convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.score = nn.Sequential(convolution)
        if form == "original":
            norm = nn.BatchNorm2d(1, momentum=0.01)
            nn.init.zeros_(norm.weight)
            self.score.append(norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), each in 0..1."""
        rows = x.permute(0, 2, 3, 1)
        greatest, mean = rows.max(3).values, rows.mean(3)
        pooled = torch.stack((greatest, mean) if self.max_first else (mean, greatest), 1)
        return self.score(pooled).sigmoid()  # type: ignore[no-any-return]


class Cbam(nn.Module):
    """Both gates, one after the other.

    Args:
        channels: C, of the maps.
        ratio: the MLP has C/ratio hidden units,
        floor: but no fewer than these.
        form: see the head of this file.
    """

    def __init__(self, channels: int, *, ratio: int, floor: int, form: Form) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, max(channels // ratio, floor), bias=form == "original")
        self.spatial = SpatialGate(form)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, no value greater in magnitude than before."""
        x = x * self.channel(x)
        return x * self.spatial(x)  # type: ignore[no-any-return]


def add_gates(network: ResidualNetwork, *, ratio: int, floor: int, form: Form) -> None:
    """Put gates at the end of every block's branch; the network's other weights stay as they are."""
    for block in network.blocks():
        block.body.append(Cbam(block.channels, ratio=ratio, floor=floor, form=form))
