"""Heads whose rows are classes; the rows of old classes keep their weights when new ones are added."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class LinearHead(nn.Module):
    """logits = W f + b, with W (N, D) and b (N,)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.bias = nn.Parameter(torch.empty(0))

    def grow(self, classes: int) -> None:
        """Add rows, drawn as torch draws those of a linear layer."""
        self.weight = _extended(self.weight, classes)
        bound = 1 / math.sqrt(self.weight.shape[1])
        new = self.bias.new_empty(classes).uniform_(-bound, bound)
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), new]))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        return linear(features, self.weight, self.bias)


class CosineHead(nn.Module):
    """logits = eta cos(f, W), with W (N, D) and a learned scalar eta (Hou et al., CVPR 2019, equation 4)."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.scale = nn.Parameter(torch.tensor(scale))

    def grow(self, classes: int) -> None:
        """Add rows; only their direction counts."""
        self.weight = _extended(self.weight, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N), each in -eta..eta."""
        return self.scale * self.similarities(features)

    def similarities(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N), each in -1..1."""
        return linear(normalize(features), normalize(self.weight))


def _extended(weight: nn.Parameter, classes: int) -> nn.Parameter:
    bound = 1 / math.sqrt(weight.shape[1])
    new = weight.new_empty(classes, weight.shape[1]).uniform_(-bound, bound)
    return nn.Parameter(torch.cat([weight.detach(), new]))
