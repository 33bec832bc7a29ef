"""resnet20 and resnet32: the residual networks for 32-pixel images that the field compares on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class ResNetOptions(Options):
    """Options of resnet20 and resnet32."""

    width: int = Field(16, ge=1, le=1024, description="channels of the first stage; the paper's networks have 16")


class ResNet20:
    """Residual network of three stages of 3 blocks for small images (He et al., CVPR 2016)."""

    offers = frozenset({"features", "maps", "raw_maps", "pooled"})
    blocks: ClassVar[int] = 3  # n blocks a stage make 6n+2 layers

    def __init__(self, options: ResNetOptions) -> None:
        self.options = options

    def build(self, channels: int) -> nn.Module:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones.resnet_network import ResNet

        return ResNet(channels, self.blocks, self.options.width)


class ResNet32(ResNet20):
    """Residual network of three stages of 5 blocks for small images (He et al., CVPR 2016)."""

    blocks = 5


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Backbone("resnet20", ResNet20, ResNetOptions)
    yield Backbone("resnet32", ResNet32, ResNetOptions)
