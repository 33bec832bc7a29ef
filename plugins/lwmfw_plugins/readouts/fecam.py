"""fecam: the class whose mean is nearest in the Mahalanobis distance decides (FeCAM, Goswami et al., NeurIPS 2023).

Features go through Tukey's root and to length 1; the covariance is shrunk, then brought to correlations:

    S + a1 mean(diag S) I + a2 mean(off-diagonal S) (1 - I), then S_ij / (s_i s_j);  d_c = (z - m_c)^T S^-1 (z - m_c)

The paper's covariances are one a class, and are worse than none without shrinkage; one for all classes, which its
authors use where images are few, is the default here. Differences to the published code: the covariance is of the
features that distances are taken of, and is shrunk once; the first step is decided likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums, SumsOptions

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


class FecamOptions(SumsOptions):
    """Options of fecam."""

    covariance: Literal["shared", "class"] = Field("shared", description="one for all classes, or one for each")
    power: float = Field(
        0.5,
        gt=0,
        le=1,
        description="exponent of Tukey's transform, which keeps the sign; 1: none, as for features of both signs",
    )
    diagonal: float = Field(1.0, gt=0, le=1000, description="shrinkage of variances (alpha_1)")
    beside: float = Field(1.0, ge=0, le=1000, description="shrinkage of covariances (alpha_2)")


class Fecam(FromSums):
    """The class with the nearest mean by Mahalanobis distance, shared or per class, after Tukey's transform."""

    def __init__(self, options: FecamOptions) -> None:
        super().__init__(options)
        self.options, self.apart = options, options.covariance == "class"

    def hidden(self, features: Tensor) -> Tensor:
        """After the root, of length 1."""
        return super().hidden(self._root(features))

    def unrounded(self, features: Tensor) -> Tensor:
        """Likewise."""
        return super().unrounded(self._root(features))

    def _root(self, features: Tensor) -> Tensor:
        return features.sign() * features.abs() ** self.options.power

    def solve(self, sums: Sums) -> None:
        """Means, and the inverse of the correlations applied to them; of each class, or once for all."""
        import torch

        from lwmfw_plugins.readouts._sums import LEVELS, covariance, discriminant

        means = sums.means / LEVELS
        if sums.grams is None:
            matrix = correlations(sums.covariance, self.options.diagonal, self.options.beside)
            self.weights, self.biases = discriminant(matrix, means)
            return
        spreads = []
        for gram, moments, count in zip(sums.grams, sums.moments.T, sums.counts, strict=True):
            own = covariance(gram, moments[:, None], count[None]) if count > 1 else sums.covariance
            spreads.append(correlations(own, self.options.diagonal, self.options.beside))
        self.inverses = torch.linalg.inv(torch.stack(spreads))
        self.weights = (self.inverses @ means[:, :, None]).squeeze(2).T
        self.biases = -0.5 * (means.T * self.weights).sum(0)

    def decide(self, h: Tensor) -> Tensor:
        """Minus half the squared distances; with one covariance, without the part that all classes share."""
        from lwmfw_plugins.readouts._sums import LEVELS

        h = h / LEVELS
        found: Tensor = h @ self.weights + self.biases
        if self.apart:
            found = found - 0.5 * ((h @ self.inverses) * h).sum(2).T
        return found


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("fecam", Fecam, FecamOptions)
