"""resnet20, resnet32, podnet32, thesis32: the residual networks for 32-pixel images that the field compares on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw_plugins.backbones._resnet import ResidualNetwork


class WidthOptions(Options):
    """Options of podnet32."""

    width: int = Field(16, ge=1, le=1024, description="channels of the first stage; the paper's networks have 16")


class ResNetOptions(WidthOptions):
    """Options of resnet20, resnet32 and thesis32."""

    final_relu: bool = Field(
        True, description="a ReLU after the last addition; UCIR's networks have none, so that features can be negative"
    )


class ResNet20:
    """Residual network for small images, with three stages of 3 blocks (He et al., CVPR 2016)."""

    offers = frozenset({"features", "maps", "raw_maps", "pooled"})
    blocks: ClassVar[int] = 3  # n blocks a stage make 6n+2 layers

    def __init__(self, options: ResNetOptions) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones._resnet import ResNet

        return ResNet(channels, self.blocks, self.options.width, final_relu=self.options.final_relu)


class ResNet32(ResNet20):
    """Residual network for small images, with three stages of 5 blocks (He et al., CVPR 2016)."""

    blocks = 5


class PodNet32:
    """resnet32 in four stages and without a ReLU after its additions, as in PODNet (Douillard et al., ECCV 2020)."""

    offers = ResNet20.offers

    def __init__(self, options: WidthOptions) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones import _resnet

        return _resnet.PodNet32(channels, self.options.width)


class Thesis32:
    """Residual network with four stages of 5, 4, 3 and 2 blocks: 30 layers, which the thesis calls ResNet-32.

    The stem's max-pooling leaves 32-pixel images a last map of 2x2. With its 128 features and 825,296 parameters it
    is 1.8 times as large as resnet32, with which it is not to be compared as if only gates set them apart. Its source
    switches the ReLU after additions off inside stages by default; here it is everywhere, as He et al. have it.
    """

    offers = ResNet20.offers

    def __init__(self, options: ResNetOptions) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones import _resnet

        return _resnet.Thesis32(channels, self.options.width, final_relu=self.options.final_relu)


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Backbone("resnet20", ResNet20, ResNetOptions)
    yield Backbone("resnet32", ResNet32, ResNetOptions)
    yield Backbone("podnet32", PodNet32, WidthOptions)
    yield Backbone("thesis32", Thesis32, ResNetOptions)
