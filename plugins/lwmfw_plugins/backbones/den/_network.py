"""Convolutional networks to which units are added step by step, as plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from lwmfw import Features


def drawn(units: int, below: int, rng: Generator | None = None) -> Tensor:
    """Weights (units, below, 3, 3), normal with the variance that He et al. (ICCV 2015) give a layer before a ReLU."""
    return torch.randn(units, below, 3, 3, generator=rng) * math.sqrt(2 / (9 * below))


class Units(nn.Module):
    """The units that a step has made, in every layer; a unit is an output channel of a 3x3 convolution.

    Attributes:
        weights: of each layer, (units, channels below, 3, 3); below are units of this step and of those before it.
        biases: of each layer, (units,).
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.take(weights, biases)

    def take(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Have these units in place of those there were."""
        self.weights = nn.ParameterList(nn.Parameter(weight.detach()) for weight in weights)
        self.biases = nn.ParameterList(nn.Parameter(bias.detach()) for bias in biases)


class ExpandableNetwork(nn.Module):
    """3x3 convolutions with ReLU, max-pooling between them, and the spatial mean as features, oldest units first.

    A unit reads units of its own step and of earlier ones alone. What is added thus changes nothing of what was there,
    for whichever step it is asked: the paper's timestamped inference, without a mask.

    Args:
        channels: of the images.
        widths: units of each layer in the first step.

    Attributes:
        steps: the units of each step; a later one can have none.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        below = (channels, *widths)
        first = Units([drawn(n, c) for c, n in zip(below, widths, strict=False)], [torch.zeros(n) for n in widths])
        self.channels, self.steps = channels, nn.ModuleList([first])
        for hook in (_add_steps, take_shapes):
            self.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]

    @property
    def newest(self) -> Units:
        """The units of the newest step."""
        return cast(Units, self.steps[-1])

    def layers(self) -> list[list[tuple[nn.Parameter, nn.Parameter]]]:
        """Of each layer, weights and biases of each step's units."""
        steps = cast(list[Units], list(self.steps))
        return [[(step.weights[layer], step.biases[layer]) for step in steps] for layer in range(len(steps[0].biases))]

    @property
    def widths(self) -> list[int]:
        """Units of each layer."""
        return [sum(len(bias) for _, bias in layer) for layer in self.layers()]

    def add_step(self) -> None:
        """Begin a step, without units."""
        like = self.layers()[0][0][0]
        below = (self.channels, *self.widths)
        none = [like.new_empty(0, c, 3, 3) for c in below[:-1]]
        self.steps.append(Units(none, [like.new_empty(0) for _ in none]))

    def expand(self, units: int, rng: Generator) -> None:
        """Give the newest step, which has none yet, so many units in every layer, drawn at random."""
        like = self.layers()[0][0][0]
        below = (self.channels, *(width + units for width in self.widths))
        weights = [drawn(units, c, rng).to(like) for c in below[:-1]]
        self.newest.take(weights, [like.new_zeros(units) for _ in weights])

    def forward(self, images: Tensor) -> Features:
        """Features, and the map that they are the mean of."""
        layers, below = self.layers(), [images]
        for layer in layers:
            maps: list[Tensor] = []
            for step, (weight, bias) in enumerate(layer, 1):
                if not len(bias):
                    maps.append(maps[0][:, :0])
                    continue
                # a convolution for each step, and a mean: all at once could round otherwise with every unit that comes
                x = conv2d(torch.cat(below[:step], 1), weight, bias, padding=1).relu()
                maps.append(x if layer is layers[-1] else max_pool2d(x, 2, ceil_mode=True))
            below = maps
        return Features(torch.cat([x.mean((2, 3)) for x in maps], 1), [], [], torch.cat(maps, 1))


def _add_steps(network: ExpandableNetwork, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Begin as many steps as there are in a state that is about to be read."""
    while f"{prefix}steps.{len(network.steps)}.biases.0" in state:
        network.add_step()


def take_shapes(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Give parameters the shapes that they have in a state that is about to be read."""
    for name, parameter in list(module.named_parameters()):
        kept = state.get(prefix + name)
        if kept is not None and kept.shape != parameter.shape:
            owner, own = name.rpartition(".")[::2]
            setattr(module.get_submodule(owner), own, nn.Parameter(parameter.new_empty(kept.shape)))
