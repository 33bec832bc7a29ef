"""A network that gets a branch for every step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lwmfw import Features
from lwmfw_plugins.backbones._resnet import ResidualNetwork, ResNet
from lwmfw_plugins.backbones.der._masks import GatedResNet, renumber, take_shape


class DerNetwork(nn.Module):
    """Branches side by side, one per step; only the newest learns.

    Old branches require no gradient and are always in evaluation mode, so that nothing of them changes and they cost a
    forward pass.

    Args:
        channels: of the images.
        blocks: per stage of a branch.
        width: channels of a branch's first stage.
        gated: whether branches have gates, by which they can be cut.
    """

    def __init__(self, channels: int, blocks: int, width: int, *, gated: bool) -> None:
        super().__init__()
        self.shape, self.gated = (channels, blocks, width), gated
        self.branches = nn.ModuleList([self._drawn()])
        if gated:
            self.register_load_state_dict_pre_hook(_take_shapes)  # type: ignore[no-untyped-call]

    @property
    def newest(self) -> ResidualNetwork:
        """The branch of the current step."""
        return self.branches[-1]  # type: ignore[return-value]

    def grow(self, *, fresh: bool) -> None:
        """Add a branch, drawn anew or as the newest one is, and freeze those that are there."""
        branch = self._drawn() if fresh else copy.deepcopy(self.newest)
        self.branches.requires_grad_(False)
        self.branches.append(branch.requires_grad_(True))
        self.train(self.training)

    def _drawn(self) -> ResidualNetwork:
        return GatedResNet(*self.shape) if self.gated else ResNet(*self.shape)

    def train(self, mode: bool = True) -> DerNetwork:
        """Training or evaluation mode, of the newest branch."""
        super().train(mode)
        for old in self.branches[:-1]:
            old.eval()
        return self

    def forward(self, images: Tensor) -> Features:
        """The features of all branches one behind another, oldest first (equation 1)."""
        pooled = torch.cat([branch(images).pooled for branch in self.branches], 1)
        return Features(pooled.mean((2, 3)), [], [], pooled)


def _take_shapes(network: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Let a network have the shapes of the state that it is about to read: how much was cut is nowhere else."""
    for name, own in itertools.chain(network.named_parameters(), network.named_buffers()):
        value = state.get(prefix + name)
        if value is not None and value.shape != own.shape:
            take_shape(own, value.shape)
    renumber(network)
