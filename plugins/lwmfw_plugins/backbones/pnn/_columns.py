"""Progressive networks (Rusu et al. 2016) whose columns are residual networks, as plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from lwmfw import Features
from lwmfw_plugins.backbones._resnet import ResNet

SMALL = 0.1
"""Scales of earlier columns begin at random between zero and this; the paper says small and random, and no more."""


def lateral(
    own: Tensor, earlier: Sequence[Tensor], scales: Tensor, project: Tensor, bias: Tensor, back: Tensor
) -> Tensor:
    """own + U relu(V [a_1 h_1, ..., a_k-1 h_k-1] + b) at every position (equation 2, with 1x1 convolutions).

    Args:
        own: (B, C, H, W), what column k receives from itself.
        earlier: maps (B, C_j, H, W) of the columns before it, at the same place.
        scales: a (k-1,), a factor for each of them.
        project: V (C, sum of C_j, 1, 1).
        bias: b (C,).
        back: U (C, C, 1, 1).

    Returns:
        (B, C, H, W).
    """
    # scaling V is scaling the maps, without a scaled copy of each that its gradient would keep
    factors = torch.cat([scale.expand(maps.shape[1]) for scale, maps in zip(scales, earlier, strict=True)])
    reduced = conv2d(torch.cat(list(earlier), 1), project * factors[:, None, None], bias).relu()
    return own + conv2d(reduced, back)


class Adapter(nn.Module):
    """What earlier columns bring to one place of a column.

    Args:
        channels: C, of the column's own maps.
        earlier: channels of the maps of earlier columns.
    """

    def __init__(self, channels: int, earlier: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.empty(len(earlier)).uniform_(0, SMALL))
        self.project = nn.Conv2d(sum(earlier), channels, 1)
        self.back = nn.Conv2d(channels, channels, 1, bias=False)
        for convolution in (self.project, self.back):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """`lateral` with the weights learned here."""
        bias: Tensor = self.project.bias  # type: ignore[assignment]
        return lateral(own, earlier, self.scales, self.project.weight, bias, self.back.weight)


class Column(nn.Module):
    """A residual network of three stages, with an adapter at the entrance of each where there are earlier columns.

    Args:
        channels: of the images.
        blocks: of a stage.
        width: channels of the first stage.
        earlier: widths of the columns before it.
    """

    def __init__(self, channels: int, blocks: int, width: int, earlier: Sequence[int]) -> None:
        super().__init__()
        self.width = width
        self.network = ResNet(channels, blocks, width)
        factors = (1, 1, 2) if earlier else ()  # of the width: stem, first and second stage
        self.adapters = nn.ModuleList(Adapter(f * width, [f * w for w in earlier]) for f in factors)

    def forward(self, images: Tensor, earlier: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Ends of the stem and of the stages, for those of the columns before it."""
        ends: list[Tensor] = [self.network.stem(images)]
        for place, blocks in enumerate(self.network.stages):
            x = ends[-1]
            if self.adapters:
                x = self.adapters[place](x, [others[place] for others in earlier])
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x).relu_()
            ends.append(x)
        return ends


class ProgressiveNetwork(nn.Module):
    """Columns side by side; the features of all of them are the features, in the order in which they came.

    All columns but the newest stay in evaluation mode and are computed without gradients.

    Args:
        channels: of the images.
        blocks: of a stage.
        width: channels of the first column's first stage.
        later: the same of the columns behind it.
    """

    def __init__(self, channels: int, blocks: int, width: int, later: int) -> None:
        super().__init__()
        self.channels, self.blocks, self.later = channels, blocks, later
        self.columns = nn.ModuleList([Column(channels, blocks, width, [])])

    def add_column(self) -> None:
        """Take all columns out of training and put a new one behind them."""
        self.requires_grad_(False)
        earlier = [column.width for column in self.columns]
        self.columns.append(Column(self.channels, self.blocks, self.later, earlier))  # type: ignore[arg-type]
        self.train(self.training)

    def train(self, mode: bool = True) -> ProgressiveNetwork:
        """Training or evaluation mode, of the newest column alone."""
        super().train(mode)
        for column in list(self.columns)[:-1]:
            column.eval()
        return self

    def forward(self, images: Tensor) -> Features:
        """Features, and the last maps of all columns as the map that they are the mean of."""
        *old, newest = self.columns
        ends: list[list[Tensor]] = []
        with torch.no_grad():
            for column in old:
                ends.append(column(images, ends))
        ends.append(newest(images, ends))
        last = [of_column[-1] for of_column in ends]
        # a mean per column: that of all at once could round otherwise with every column that comes
        return Features(torch.cat([x.mean((2, 3)) for x in last], 1), [], [], torch.cat(last, 1))
