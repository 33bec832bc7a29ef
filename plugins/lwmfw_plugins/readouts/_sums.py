"""Sums over images from which several read-outs are solved: G = sum h h^T, Q = sum h y^T, and n, images of each class.

Features are brought to whole numbers on a fixed scale first. Sums of whole numbers below 2^53 are exact in float64, so
any order of the images, any partition into steps and any batch size give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

LEVELS = 4095
"""Of a feature's magnitude between 0 and the largest: 12 bits. Exact for up to 2^53 / 4095^2, half a billion images."""


def rounded(features: Tensor) -> Tensor:
    """Features of length 1 as whole numbers, -LEVELS..LEVELS.

    A scale that does not depend on the data: a maximum over images would depend on which of them came first.

    Args:
        features: (N, D), of any length.

    Returns:
        (N, D), float64, on the host.
    """
    return (normalize(features.detach().double().cpu()) * LEVELS).round()


@dataclass
class Sums:
    """What is known of all images so far.

    Attributes:
        gram: (M, M), float64: sum of h h^T.
        moments: (M, C), float64: column c is the sum of the h of class c.
        counts: (C,), float64: images of each class.
    """

    gram: Tensor
    moments: Tensor
    counts: Tensor

    @classmethod
    def none(cls, width: int) -> Sums:
        """Those of no image."""
        zeros = torch.zeros(width, width, dtype=torch.float64)
        return cls(zeros, zeros[:, :0].clone(), zeros[0, :0].clone())

    def add(self, h: Tensor, labels: Tensor, classes: int) -> None:
        """Take images in.

        Args:
            h: (N, M), float64, whole numbers.
            labels: (N,), int64, below `classes`.
            classes: how many there are by now; new ones get columns.
        """
        self.moments = pad(self.moments, (0, classes - self.moments.shape[1]))
        self.counts = pad(self.counts, (0, classes - len(self.counts)))
        self.gram += h.T @ h
        self.moments.index_add_(1, labels.cpu(), h.T)
        self.counts += torch.bincount(labels.cpu(), minlength=classes)

    @property
    def means(self) -> Tensor:
        """(C, M), zero for a class without images."""
        return (self.moments / self.counts.clamp(min=1)).T

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"gram": self.gram, "moments": self.moments, "counts": self.counts}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Sums:
        """The inverse of `state`."""
        return cls(state["gram"], state["moments"], state["counts"])


def covariance(sums: Sums) -> Tensor:
    """The pooled covariance within classes, (M, M): (G - sum_c n_c m_c m_c^T) / N."""
    return (sums.gram - sums.moments @ sums.means) / sums.counts.sum()


def shrunk(matrix: Tensor, share: float) -> Tensor:
    """A covariance drawn towards a multiple of the identity: (1 - s) S + s mean(diag S) I."""
    diagonal = torch.eye(len(matrix), dtype=matrix.dtype) * matrix.diagonal().mean()
    return (1 - share) * matrix + share * diagonal


def discriminant(matrix: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (M, C) and biases (C,) of the discriminants m_c S^-1 h - m_c S^-1 m_c / 2.

    Args:
        matrix: S, (M, M), symmetric and positive definite.
        means: m, (C, M).
    """
    weights = torch.linalg.solve(matrix, means.T)
    return weights, -0.5 * (means.T * weights).sum(0)


def lift_matrix(features: int, width: int, seed: int) -> Tensor:
    """Random directions of length 1, (features, width), float64: ReLU(f B) is then in 0..1 for f of length 1."""
    drawn = torch.randn(features, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(drawn, dim=0)


def generalised_cross_validation(gram: Tensor, moments: Tensor, count: float, grid: Tensor) -> float:
    """The penalty of a ridge regression on one-hot labels that leave-one-out prediction wants (Golub et al. 1979), from
    the sums alone.

    GCV = N RSS / (N - dof)^2, with RSS = N - 2 sum P^2 / (L + l) + sum L P^2 / (L + l)^2, dof = sum L / (L + l),
    G = V diag(L) V^T and P = V^T Q.

    Args:
        gram: (M, M).
        moments: (M, C).
        count: N.
        grid: penalties to choose from, (K,).
    """
    values, vectors = torch.linalg.eigh(gram)
    values, energy = values.clamp(min=0)[:, None], (vectors.T @ moments).square().sum(1, keepdim=True)
    damped = values + grid[None, :]
    residual = count - 2 * (energy / damped).sum(0) + (values * energy / damped.square()).sum(0)
    freedom = (values / damped).sum(0)
    return float(grid[(count * residual / (count - freedom).clamp(min=1e-9).square()).argmin()])
