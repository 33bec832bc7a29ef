"""A small new model and its predecessor, for tests: everything a penalty can ask for, of known shapes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from lwmfw.model import Model, build_model, frozen_copy
from lwmfw.scenario import Step
from lwmfw.types import Batch, Features, Outputs


class _Body(nn.Module):
    """A small network that offers everything a penalty can need."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6))

    def forward(self, images: torch.Tensor) -> Features:
        raw_first = self.first(images)
        first = raw_first.relu()
        raw_second = self.second(first)
        second = raw_second.relu()
        return Features(second.mean((2, 3)), [first, second], [raw_first, raw_second], second)


class _Head(nn.Module):
    """A linear classifier for 6 features that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, 6))

    def grow(self, classes: int) -> None:
        new = torch.randn(classes, 6, dtype=self.weight.dtype)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), new]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.weight.T

    similarities = forward


@dataclass(frozen=True)
class Pair:
    """A model, its predecessor, and what both say of one batch, in float64.

    Attributes:
        step: two old classes, two new ones.
        batch: two images of each class; those of old ones are exemplars.
    """

    model: Model
    old_model: Model
    step: Step
    batch: Batch
    new: Outputs
    old: Outputs

    def subset(self, chosen: torch.Tensor | slice) -> Pair:
        """The same models on some images of the batch, the model in the mode it is in."""
        images = self.batch.images[chosen]
        batch = Batch(images, self.batch.labels[chosen], self.batch.from_memory[chosen])
        return Pair(self.model, self.old_model, self.step, batch, self.model(images), _old(self.old_model, images))


def outputs_pair(seed: int = 0, *, head: nn.Module | None = None, equal: bool = False, training: bool = False) -> Pair:
    """A new and an old model and their outputs for 8 images of 3x8x8.

    Args:
        seed: of weights and images.
        head: a classifier for 6 features without classes; by default a linear one.
        equal: whether both have the same weights for the old classes.
        training: whether the new model is in training mode; the old one never is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(_Body(), head or _Head(), torch.device("cpu"), bf16=False)
        model.grow(2)
        model.double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_var is not None
                assert module.running_mean is not None
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.3)
        # folding BatchNorm rounds, and equal is to mean equal bits
        old_model = copy.deepcopy(model).eval().requires_grad_(False) if equal else frozen_copy(model)
        if not equal:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
        model.grow(2)
        model.double().train(training)
        images = torch.randn(8, 3, 8, 8, dtype=torch.float64)
        labels = torch.tensor([2, 0, 3, 1] * 2)
    batch = Batch(images, labels, labels < 2)
    step = Step(2, range(2, 4), range(4), 2)
    return Pair(model, old_model, step, batch, model(images), _old(old_model, images))


def _old(model: Model, images: torch.Tensor) -> Outputs:
    """The old model's outputs with the graph that "old_graph" stands for."""
    return model(images.detach().requires_grad_()).detached()  # type: ignore[no-any-return]
