"""ncm: the nearest class mean decides, of all images of a class (Mensink et al., PAMI 2013).

Unlike nme it needs no exemplars: the sums of a class are taken when its images are there. Means are of features of
length 1, and so are compared: the score is the cosine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Readout, hookimpl
from lwmfw_plugins.readouts._fitted import FromSums, SumsOptions

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw_plugins.readouts._sums import Sums


class NearestClassMean(FromSums):
    """The class with the nearest mean feature, by cosine, over all images, none of which is kept."""

    def solve(self, sums: Sums) -> None:
        """The directions of the means."""
        from torch.nn.functional import normalize

        self.means = normalize(sums.means)

    def decide(self, h: Tensor) -> Tensor:
        """Cosines."""
        from torch.nn.functional import normalize

        return normalize(h) @ self.means.T


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("ncm", NearestClassMean, SumsOptions)
