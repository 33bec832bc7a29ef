"""A self-organising map (Kohonen 1982) and the linear answer that is read off its activity, for batches of images.

Both updates are those of one image after another, put for a batch: a batch of one is Kohonen's rule and the delta rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 3
"""Radii beyond which a neighbour of the winner is not moved, so that a map changes where it is and nowhere else."""

_AT_ONCE = 2**24  # distances


def grid(side: int) -> Tensor:
    """Row and column of each prototype of a map, (M, 2) for M = side * side."""
    line = torch.arange(side, dtype=torch.float32)
    return torch.cartesian_prod(line, line)


def parts(features: Tensor, prototypes: Tensor) -> list[Tensor]:
    """Features in parts whose distances to all prototypes can be held at once."""
    return list(features.split(max(1, _AT_ONCE // len(prototypes))))


def distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Squared distances of features (B, D) to prototypes (M, D): (B, M), not negative."""
    products = features @ prototypes.T
    return (features.square().sum(1, keepdim=True) - 2 * products + prototypes.square().sum(1)).clamp(min=0)


def activity(features: Tensor, prototypes: Tensor, width: Tensor | float) -> Tensor:
    """What the map says of features: z_j = exp(-|x - w_j|^2 / 2 k^2), brought to the sum 1.

    Args:
        features: x, (B, D).
        prototypes: w, (M, D).
        width: k, above 0.

    Returns:
        (B, M), each row of sum 1.
    """
    return (-distances(features, prototypes) / (2 * width**2)).softmax(1)


def neighbourhood(winners: Tensor, places: Tensor, radius: float) -> Tensor:
    """How far each prototype goes along with the winner: exp(-g^2 / 2 r^2), 1 for itself, 0 beyond REACH radii.

    g is the distance on the grid between the two.

    Args:
        winners: (B,), int64.
        places: (M, 2), of `grid`.
        radius: r.

    Returns:
        (B, M).
    """
    apart = (places[winners, None] - places).square().sum(2)
    return (-apart / (2 * radius**2)).exp() * (apart <= (REACH * radius) ** 2)


def adapted(prototypes: Tensor, features: Tensor, places: Tensor, rate: float, radius: float, chosen: Tensor) -> Tensor:
    """The prototypes after a batch: w_j + (1 - prod_b (1 - e h_bj)) (m_j - w_j), m_j the mean of x_b weighted by h_bj.

    A prototype goes as far towards the images that pull at it as one after another would have taken it if they were the
    same; of a batch of one this is w_j + e h_j (x - w_j).

    Args:
        prototypes: w, (M, D).
        features: x, (B, D).
        places: (M, 2), of `grid`.
        rate: e, in 0..1.
        radius: of the neighbourhood h.
        chosen: (B,), bool: the images that count; if there is none, nothing moves.
    """
    pull = neighbourhood(distances(features, prototypes).argmin(1), places, radius) * chosen[:, None]
    way = -torch.expm1(torch.log1p(-rate * pull).sum(0))
    means = (pull.T @ features) / pull.sum(0).clamp(min=torch.finfo(pull.dtype).tiny)[:, None]
    return prototypes + way[:, None] * (means - prototypes)


def answered(weights: Tensor, active: Tensor, labels: Tensor, rate: float, chosen: Tensor) -> Tensor:
    """The weights after a batch: V_cj + e sum_b (t_bc - (V z_b)_c) z_bj / max(1, sum_b z_bj), t one-hot.

    Of a batch of one this is the delta rule. As activities have the sum 1, no rate below 2 makes it diverge, however
    many images of a batch excite one prototype.

    Args:
        weights: V, (C, M).
        active: z, (B, M), of `activity`.
        labels: (B,), int64, below C.
        rate: e.
        chosen: (B,), bool: the images that count.
    """
    missed = torch.nn.functional.one_hot(labels, len(weights)).to(active) - active @ weights.T
    excited = active * chosen[:, None]
    return weights + rate * (missed.T @ excited) / excited.sum(0).clamp(min=1)


def novel(scores: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Which images are answered wrongly or without certainty: the own class does not lead all others by the margin.

    What an image would score of no class, 0, is among the others: a class that is alone has to be learned too.

    Args:
        scores: (B, C).
        labels: (B,), int64.
        margin: 0 for wrong ones alone.

    Returns:
        (B,), bool.
    """
    own = torch.nn.functional.one_hot(labels, scores.shape[1]).bool()
    others = scores.masked_fill(own, 0).amax(1).clamp(min=0)
    return scores.gather(1, labels[:, None])[:, 0] - others <= margin
