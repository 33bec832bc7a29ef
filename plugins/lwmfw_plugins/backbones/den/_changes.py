"""What DEN does to weights: which units are trained, shrinking, removal of dead units, splitting.

Shapes: C channels, n units of a step. The lists of weights and biases begin at the images. `weights` of a step's units
ends with the weights of its head, (classes, features), which reads them as any layer reads the one below.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lwmfw_plugins.backbones.den._network import ExpandableNetwork


def connected(weight: Tensor) -> Tensor:
    """Which units read which: (n, C), true where a kernel of weights (n, C, 3, 3) is not all zero."""
    return (weight != 0).any(3).any(2)


def reachable(layers: Sequence[Sequence[Tensor]], head: Tensor) -> list[Tensor]:
    """The units that a head's weights that are not zero lead back to, through weights that are not (Algorithm 2).

    Args:
        layers: weights (n, C, 3, 3) of each layer and each step.
        head: (classes, features).

    Returns:
        For each layer a mask of its units (C,), all steps' in their order.
    """
    found = [(head != 0).any(0)]
    for layer in reversed(layers[1:]):
        width, reading = found[0], torch.zeros(layer[-1].shape[1], dtype=torch.bool, device=head.device)
        for weight, chosen in zip(layer, width.split([len(weight) for weight in layer]), strict=True):
            reading[: weight.shape[1]] |= (connected(weight) & chosen[:, None]).any(0)
        found.insert(0, reading)
    return found


def shrink(weight: Tensor, amount: float) -> None:
    """Bring every weight nearer to zero by an amount, and to zero at the nearest: the proximal step of L1, in place."""
    weight.copy_(weight.sign() * (weight.abs() - amount).clamp(min=0))


def shrink_units(weight: Tensor, bias: Tensor, amount: float) -> None:
    """Shorten what goes into each unit, weights (n, C, 3, 3) and bias (n,), by an amount: the proximal step of the
    group lasso, in place. A unit that is not as long is zero afterwards."""
    length = (weight.square().sum((1, 2, 3)) + bias.square()).sqrt()
    left = (1 - amount / length).clamp(min=0).nan_to_num(0.0)  # of 0 / 0
    weight.mul_(left[:, None, None, None])
    bias.mul_(left)


def drift(weight: Tensor, bias: Tensor, weight_before: Tensor, bias_before: Tensor) -> Tensor:
    """How far what goes into each unit has moved, (n,): rho of Algorithm 4; a bias counts as a weight."""
    return ((weight - weight_before).square().sum((1, 2, 3)) + (bias - bias_before).square()).sqrt()


def distance(network: ExpandableNetwork, before: ExpandableNetwork) -> Tensor:
    """The sum of the squared differences of all weights and biases of two networks of one shape (equation 6)."""
    pairs = zip(network.parameters(), before.parameters(), strict=True)
    return torch.stack([(now - old.detach()).square().sum() for now, old in pairs]).sum()


def without_dead(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The newest step's units less those that are zero, whose map is zero; no output changes.

    Args:
        weights: of each layer, and of the head; the units of a layer are the last columns of what is above.
        biases: of each layer.
    """
    weights, biases = list(weights), list(biases)
    for layer, bias in enumerate(biases):
        alive = connected(weights[layer]).any(1) | (bias != 0)
        above = weights[layer + 1]
        kept = torch.cat([alive.new_ones(above.shape[1] - len(alive)), alive])
        weights[layer], biases[layer], weights[layer + 1] = weights[layer][alive], bias[alive], above[:, kept]
    return weights, biases


def redirected(weight: Tensor, units: Tensor) -> Tensor:
    """Weights that read copies, new columns at the end, in the place of the units (m,) copied."""
    weight = torch.cat([weight, weight[:, units]], 1)
    weight[:, units] = 0
    return weight


def with_copies(
    weights: Sequence[Tensor], biases: Sequence[Tensor], copies: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """The newest step's units with copies of older ones behind them, which they, the head and the copies read.

    Args:
        weights: of each layer, and of the head.
        biases: of each layer.
        copies: for each layer the positions (m,) of the units copied, and their weights (m, C, 3, 3), biases (m,).
    """
    grown, more, below = [], [], copies[0][0][:0]
    for weight, bias, (units, copied, copied_bias) in zip(weights, biases, copies, strict=False):
        grown.append(redirected(torch.cat([weight, _widened(copied, weight.shape[1])]), below))
        more.append(torch.cat([bias, copied_bias]))
        below = units
    return [*grown, redirected(weights[-1], below)], more


def put_back(
    network: ExpandableNetwork, before: ExpandableNetwork, threshold: float
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Give every older unit that has drifted further than a threshold its old weights back (Algorithm 4).

    Args:
        network: its older units are changed in place.
        before: the same network before the step.
        threshold: sigma.

    Returns:
        For each layer the positions (m,) of these units, and what they had drifted to: weights (m, C, 3, 3) over all
        older units below, biases (m,).
    """
    copies = []
    for layer, layer_before in zip(network.layers(), before.layers(), strict=True):
        (*older, _), (*older_before, (empty, _)) = layer, layer_before
        found, first = [], 0
        for (weight, bias), (weight_before, bias_before) in zip(older, older_before, strict=True):
            moved = drift(weight, bias, weight_before, bias_before) > threshold
            found.append((first + moved.nonzero().flatten(), _widened(weight[moved], empty.shape[1]), bias[moved]))
            with torch.no_grad():
                weight[moved], bias[moved] = weight_before[moved], bias_before[moved]
            first += len(bias)
        units, weights, biases = (torch.cat(part).detach() for part in zip(*found, strict=True))
        copies.append((units, weights, biases))
    return copies


def _widened(weight: Tensor, below: int) -> Tensor:
    """Weights (n, C, 3, 3) over more units, to which they are not connected."""
    return pad(weight, (0, 0, 0, 0, 0, below - weight.shape[1]))
