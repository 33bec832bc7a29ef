"""pnn: a column of its own for every step, fed by those before it (Rusu et al., arXiv:1606.04671, 2016).

    h_i^(k) = f(W_i^(k) h_i-1^(k) + U_i^(k) f(V_i^(k) [a_1 h_i-1^(1), ..., a_k-1 h_i-1^(k-1)]))      (equation 2)

Earlier columns are frozen, so that nothing is forgotten. The paper's columns are perceptrons and small convolutional
networks for reinforcement learning; residual ones, and where their lateral connections lie, are a choice of ours. The
README has it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw import Model, Step
    from lwmfw_plugins.backbones.pnn._columns import ProgressiveNetwork


class PnnOptions(Options):
    """Options of pnn."""

    blocks: int = Field(3, ge=1, le=100, description="blocks per stage of a column; 3 is resnet20, 5 is resnet32")
    width: int = Field(16, ge=1, le=1024, description="channels of the first stage of the first column")
    width_later: int = Field(0, ge=0, le=1024, description="the same for later columns; 0: as in the first column")


class Pnn:
    """One residual network per step, each also fed by the earlier ones, which stay frozen (PNN, Rusu et al. 2016)."""

    needs = frozenset({"resize"})
    offers = frozenset({"pooled"})

    def __init__(self, options: PnnOptions) -> None:
        self.options = options

    def build(self, channels: int) -> ProgressiveNetwork:
        """The first column, for images of so many channels."""
        from lwmfw_plugins.backbones.pnn._columns import ProgressiveNetwork

        width, later = self.options.width, self.options.width_later or self.options.width
        return ProgressiveNetwork(channels, self.options.blocks, width, later)

    @hookimpl
    def grow_model(self, step: Step, model: Model) -> None:
        """Add a column; the first step has one."""
        if step.index > 1:
            cast("ProgressiveNetwork", model.backbone).add_column()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("pnn", Pnn, PnnOptions)
