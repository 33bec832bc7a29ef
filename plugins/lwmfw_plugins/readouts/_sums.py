"""Sums over images from which several read-outs are solved: G = sum h h^T, Q = sum h y^T, and n, images of each class.

Features are brought to whole numbers on a fixed scale first. Sums of whole numbers below 2^53 are exact in float64, so
any order of the images, any partition into steps and any batch size give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

LEVELS = 4095
"""Of a feature's magnitude between 0 and the largest: 12 bits. Exact for up to 2^53 / 4095^2, half a billion images."""

DAMPING = 1e-3
"""Of the map that carries sums over."""


def scaled(features: Tensor) -> Tensor:
    """Features brought to the length LEVELS; differentiable.

    A scale that does not depend on the data: a maximum over images would depend on which of them came first.

    Args:
        features: (N, D), of any length.

    Returns:
        (N, D), float64, on the host.
    """
    return normalize(features.double().cpu()) * LEVELS


def rounded(features: Tensor) -> Tensor:
    """The same in whole numbers, of which sums are exact."""
    return scaled(features.detach()).round()


@dataclass
class Sums:
    """What is known of all images so far.

    Attributes:
        gram: (M, M), float64: sum of h h^T.
        moments: (M, C), float64: column c is the sum of the h of class c.
        counts: (C,), float64: images of each class.
        grams: (C, M, M), float64: what the images of each class add to `gram`; None: they are not kept apart.
    """

    gram: Tensor
    moments: Tensor
    counts: Tensor
    grams: Tensor | None = None

    @classmethod
    def none(cls, width: int, *, apart: bool = False) -> Sums:
        """Those of no image; `apart`: with a gram of each class."""
        zeros = torch.zeros(width, width, dtype=torch.float64)
        return cls(zeros, zeros[:, :0].clone(), zeros[0, :0].clone(), zeros[None][:0].clone() if apart else None)

    @classmethod
    def of_images(cls, h: Tensor, labels: Tensor, classes: int, *, apart: bool = False) -> Sums:
        """Those of some images.

        Args:
            h: (N, M), float64, whole numbers.
            labels: (N,), int64, below `classes`.
            classes: how many there are.
            apart: whether each class gets a gram.
        """
        counts = torch.bincount(labels, minlength=classes)
        moments = h.new_zeros(h.shape[1], len(counts)).index_add_(1, labels, h.T)
        by_class = [h[labels == label] for label in range(len(counts) * apart)]
        grams = torch.stack([own.T @ own for own in by_class]) if apart else None
        return cls(h.T @ h, moments, counts.double(), grams)

    @property
    def width(self) -> int:
        """M."""
        return len(self.gram)

    @property
    def covariance(self) -> Tensor:
        """The pooled covariance within classes, (M, M)."""
        return covariance(self.gram, self.moments, self.counts)

    @property
    def means(self) -> Tensor:
        """(C, M), zero for a class without images."""
        return (self.moments / self.counts.clamp(min=1)).T

    def add(self, more: Sums, classes: Sequence[int | None], sign: int) -> None:
        """Add other sums, or take them away with a sign of -1; `classes` says which class here each class there is."""
        more = more._without([place for place, label in enumerate(classes) if label is None])
        labels = [label for label in classes if label is not None]
        index, new = torch.tensor(labels, dtype=torch.int64), max(0, 1 + max(labels, default=-1) - len(self.counts))
        self.gram = self.gram + sign * more.gram
        self.moments = pad(self.moments, (0, new)).index_add(1, index, more.moments, alpha=sign)
        self.counts = pad(self.counts, (0, new)).index_add(0, index, more.counts, alpha=sign)
        if self.grams is not None:
            assert more.grams is not None, "of one read-out"  # noqa: S101
            self.grams = pad(self.grams, (0, 0, 0, 0, 0, new)).index_add(0, index, more.grams, alpha=sign)

    def _without(self, places: Sequence[int]) -> Sums:
        """The same without classes that have no image."""
        if not places:
            return self
        kept = [place for place in range(len(self.counts)) if place not in places]
        grams = None if self.grams is None else self.grams[kept]
        return Sums(self.gram, self.moments[:, kept], self.counts[kept], grams)

    def through(self, linear: Tensor) -> Sums:
        """What the sums would be of h P for a map P (M, M)."""
        grams = None if self.grams is None else linear.T @ self.grams @ linear
        return Sums(linear.T @ self.gram @ linear, linear.T @ self.moments, self.counts, grams)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        apart = {} if self.grams is None else {"grams": self.grams}
        return {"gram": self.gram, "moments": self.moments, "counts": self.counts} | apart

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Sums:
        """The inverse of `state`."""
        return cls(state["gram"], state["moments"], state["counts"], state.get("grams"))


def carried_over(sums: Sums, before: Tensor, after: Tensor) -> tuple[Sums, float]:
    """Sums of the features that a backbone gave before it was trained, brought to those that it gives now.

    Nine tenths of the images that show both make the map; on the others it is seen how far it misses: the drift, which
    is |B P - A| / |A|.

    Args:
        sums: of old features.
        before: B, (N, M), of the new images.
        after: A, (N, M), of the same images.
    """
    tenth = torch.arange(len(before)) % 10 == 9
    linear = linear_map(before[~tenth], after[~tenth], DAMPING)
    others = tenth if tenth.any() else ~tenth  # of fewer than ten images, those that made it
    missed = before[others] @ linear - after[others]
    return sums.through(linear), float(missed.norm() / after[others].norm())


def linear_map(before: Tensor, after: Tensor, damping: float) -> Tensor:
    """The map P that carries features over, in the least squares of images that show both: P = I + (B^T B + e I)^-1
    B^T (A - B) (LDC, Gomez-Villa et al. 2024, in closed form; DPCR, He et al. 2025).

    Directions that the images do not show are left as they are; in the papers they are lost.

    Args:
        before: B, (N, M).
        after: A, (N, M).
        damping: e, in units of the mean squared length of B's columns.

    Returns:
        (M, M).
    """
    square, identity = before.T @ before, torch.eye(before.shape[1], dtype=before.dtype)
    regular = square + damping * square.diagonal().mean() * identity
    moved: Tensor = torch.linalg.solve(regular, before.T @ (after - before))
    return identity + moved


def covariance(gram: Tensor, moments: Tensor, counts: Tensor) -> Tensor:
    """The pooled covariance within classes, (M, M): (G - sum_c n_c m_c m_c^T) / N.

    Where classes have one image each and so no spread, the identity.

    Args:
        gram: G, (M, M), of these classes.
        moments: n_c m_c, (M, C).
        counts: n_c, (C,).
    """
    within: Tensor = (gram - (moments / counts.clamp(min=1)) @ moments.T) / counts.sum()
    return within if within.diagonal().sum() > 0 else torch.eye(len(gram), dtype=gram.dtype)


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
