"""Logits are minus squared distances to a point per class, as in prototypical networks."""

import torch
from torch import nn
from lwmfw import Classifier, hookimpl


class Head(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.points = nn.Parameter(torch.empty(0, features))

    def grow(self, classes):
        new = torch.randn(classes, self.points.shape[1]).to(self.points)
        self.points = nn.Parameter(torch.cat([self.points.detach(), new]))

    def forward(self, features):
        return -(features[:, None] - self.points).square().mean(2)


class Distance:
    """Minus the mean squared distance to a learned point per class."""

    def __init__(self, options):
        pass

    def build(self, features):
        return Head(features)


@hookimpl
def register_components():
    yield Classifier("distance", Distance)
