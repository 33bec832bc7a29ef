"""fecam: the class whose mean is nearest in the Mahalanobis distance decides (FeCAM, Goswami et al., NeurIPS 2023).

Features go through Tukey's root and to length 1; the covariance is shrunk, then brought to correlations:

    S + a1 mean(diag S) I + a2 mean(off-diagonal S) (1 - I), then S_ij / (s_i s_j);  d_c = (z - m_c)^T S^-1 (z - m_c)

The paper's covariances are one a class, and are worse than none without shrinkage; one for all classes, which its
authors use where images are few, is a sum over images and is built here. Differences to the published code: the
covariance is of the features that distances are taken of, and is shrunk once; the first step is decided likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw_plugins.readouts._sums import Sums


def correlations(covariance: Tensor, diagonal: float, beside: float) -> Tensor:
    """A covariance (M, M), shrunk and brought to correlations.

    Args:
        covariance: symmetric.
        diagonal: a1, of the mean variance added to every variance.
        beside: a2, of the mean covariance added to every other entry.
    """
    import torch

    size = len(covariance)
    identity = torch.eye(size, dtype=covariance.dtype)
    variance = covariance.diagonal().mean()
    other = (covariance.sum() - covariance.diagonal().sum()) / max(1, size * (size - 1))
    shrunk = covariance + diagonal * variance * identity + beside * other * (1 - identity)
    deviations = shrunk.diagonal().sqrt()
    return shrunk / (deviations[:, None] * deviations)


class FecamOptions(Options):
    """Options of fecam."""

    power: float = Field(
        0.5, gt=0, le=1, description="of Tukey's root, the sign kept; 1: none, as for features of both signs"
    )
    diagonal: float = Field(1.0, gt=0, le=1000, description="shrinkage of variances (alpha_1)")
    beside: float = Field(1.0, ge=0, le=1000, description="shrinkage of covariances (alpha_2)")


class Fecam(FromSums):
    """The class whose mean is nearest under one covariance of all classes, of features after Tukey's root."""

    def __init__(self, options: FecamOptions) -> None:
        super().__init__()
        self.options = options

    def hidden(self, features: Tensor) -> Tensor:
        """After the root, of length 1."""
        return super().hidden(features.sign() * features.abs() ** self.options.power)

    def solve(self, sums: Sums) -> None:
        """Means, and the inverse of the correlations applied to them."""
        from lwmfw_plugins.readouts._sums import LEVELS, covariance, discriminant

        matrix = correlations(covariance(sums) / LEVELS**2, self.options.diagonal, self.options.beside)
        self.weights, self.biases = discriminant(matrix, sums.means / LEVELS)

    def scores(self, features: Tensor) -> Tensor:
        """Minus half the squared distances, without the part that all classes share, (B, seen)."""
        from lwmfw_plugins.readouts._sums import LEVELS

        found: Tensor = self.hidden(features) / LEVELS @ self.weights + self.biases
        return found.to(features)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("fecam", Fecam, FecamOptions)
