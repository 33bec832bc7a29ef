"""resnet18: the residual network for photographs, with a stem for small images too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw_plugins.backbones._resnet import ResidualNetwork


class ResNet18Options(Options):
    """Options of resnet18."""

    stem: Literal["small", "large"] = Field(
        "small",
        description="small: 3x3, for 32-pixel images; large: 7x7 with stride 2 and max-pooling, for 224-pixel ones",
    )
    final_relu: bool = Field(
        True, description="a ReLU after the last addition; UCIR's networks have none, so that features can be negative"
    )


class ResNet18:
    """Residual network with four stages of 2 blocks, 11.2 million parameters (He et al., CVPR 2016)."""

    offers = frozenset({"features", "maps", "raw_maps", "pooled"})

    def __init__(self, options: ResNet18Options) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones import _resnet

        return _resnet.ResNet18(channels, self.options.stem, final_relu=self.options.final_relu)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("resnet18", ResNet18, ResNet18Options)
