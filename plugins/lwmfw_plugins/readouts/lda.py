"""lda: linear discriminant analysis decides: class means and one covariance within all classes.

w_c = S^-1 m_c and b_c = -m_c w_c / 2; S is the pooled covariance within classes, shrunk towards a multiple of the
identity. Priors are left out: classes count alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums, SumsOptions

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw_plugins.readouts._sums import Sums


class LdaOptions(SumsOptions):
    """Options of lda."""

    shrinkage: float = Field(
        0.1, gt=0, le=1, description="shrinkage of the covariance towards a multiple of the identity; our own value"
    )


class LinearDiscriminant(FromSums):
    """Linear discriminant analysis: means and one covariance of all images, none of which is kept."""

    probability = "posterior of normal distributions with one covariance and equal priors"

    def __init__(self, options: LdaOptions) -> None:
        super().__init__(options)
        self.options = options

    def solve(self, sums: Sums) -> None:
        """Weights and biases."""
        from lwmfw_plugins.readouts._sums import discriminant, shrunk

        self.weights, self.biases = discriminant(shrunk(sums.covariance, self.options.shrinkage), sums.means)

    def decide(self, h: Tensor) -> Tensor:
        """Discriminants."""
        return h @ self.weights + self.biases


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("lda", LinearDiscriminant, LdaOptions)
