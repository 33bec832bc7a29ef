"""lda: linear discriminant analysis decides: class means and one covariance within all classes.

w_c = S^-1 m_c and b_c = -m_c w_c / 2; S is the pooled covariance within classes, shrunk towards a multiple of the
identity. Priors are left out: classes count alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw_plugins.readouts._sums import Sums


class LdaOptions(Options):
    """Options of lda."""

    shrinkage: float = Field(
        0.1, gt=0, le=1, description="of the covariance towards a multiple of the identity; a value of ours"
    )


class LinearDiscriminant(FromSums):
    """The class of the largest linear discriminant: means and one covariance, of all images, without keeping any."""

    def __init__(self, options: LdaOptions) -> None:
        super().__init__()
        self.options = options

    def solve(self, sums: Sums) -> None:
        """Weights and biases."""
        from lwmfw_plugins.readouts._sums import covariance, discriminant, shrunk

        self.weights, self.biases = discriminant(shrunk(covariance(sums), self.options.shrinkage), sums.means)

    def scores(self, features: Tensor) -> Tensor:
        """Discriminants, (B, seen)."""
        found = self.hidden(features) @ self.weights + self.biases
        return found.to(features)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("lda", LinearDiscriminant, LdaOptions)
