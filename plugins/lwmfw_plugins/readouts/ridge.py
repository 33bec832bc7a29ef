"""ridge: ridge regression on one-hot labels decides (ACIL, Zhuang et al., NeurIPS 2022; RanPAC, McDonnell et al. 2023).

W = (G + l I)^-1 Q from the sums G = sum h h^T and Q = sum h y^T: the recursion of ACIL equals it for any order of the
images, and sums need no inverse a batch. h is the feature, or ReLU(f B) with fixed random directions B: the lift. The
penalty l is chosen by generalised cross-validation from the sums alone, so that it too depends on no order; RanPAC
chooses it on the last step's images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums, SumsOptions

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw_plugins.readouts._sums import Sums


def ridge_weights(sums: Sums, penalty: float) -> Tensor:
    """W = (G + l I)^-1 Q, (M, C).

    Args:
        sums: of N images.
        penalty: l, in units of G.
    """
    import torch

    regular = sums.gram + penalty * torch.eye(len(sums.gram), dtype=sums.gram.dtype)
    return torch.cholesky_solve(sums.moments, torch.linalg.cholesky(regular))


class RidgeOptions(SumsOptions):
    """Options of ridge."""

    lift: int = Field(
        0, ge=0, le=100_000, description="number of random ReLU features that the features are lifted to; 0: none"
    )
    lift_seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the random directions")
    penalty: float = Field(
        0.0,
        ge=0,
        le=1e12,
        description="penalty on the squared weights, for features of length 1; 0: chosen by generalised "
        "cross-validation",
    )


class Ridge(FromSums):
    """Ridge regression on one-hot labels, over all images, none of which is kept."""

    def __init__(self, options: RidgeOptions) -> None:
        super().__init__(options)
        self.options, self.penalty = options, options.penalty
        self.directions: Tensor | None = None

    def hidden(self, features: Tensor) -> Tensor:
        """Features of length 1, or lifted: ReLU(f B), the columns of B of length 1, so that they too are in 0..1."""
        return self._lifted(super().hidden(features)).round()

    def unrounded(self, features: Tensor) -> Tensor:
        """Likewise."""
        return self._lifted(super().unrounded(features))

    def _lifted(self, h: Tensor) -> Tensor:
        from lwmfw_plugins.readouts._sums import LEVELS, lift_matrix

        if not self.options.lift:
            return h
        if self.directions is None:
            self.directions = lift_matrix(h.shape[1], self.options.lift, self.options.lift_seed)
        return (h @ self.directions).relu().clamp(max=LEVELS)

    def solve(self, sums: Sums) -> None:
        """The weights, and the penalty that goes with them."""
        import torch

        from lwmfw_plugins.readouts._sums import LEVELS, generalised_cross_validation

        unit = float(LEVELS) ** 2
        if not self.options.penalty:
            grid = torch.logspace(-6, 6, 49, dtype=torch.float64) * unit
            count = float(sums.counts.sum())
            self.penalty = generalised_cross_validation(sums.gram, sums.moments, count, grid) / unit
        self.weights = ridge_weights(sums, self.penalty * unit)

    def decide(self, h: Tensor) -> Tensor:
        """Near 1 for the own class and near 0 for others."""
        return h @ self.weights

    def state(self) -> dict[str, Any]:
        """The sums, and the penalty in use."""
        return super().state() | {"lambda": self.penalty} if self.sums else {}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("ridge", Ridge, RidgeOptions)
