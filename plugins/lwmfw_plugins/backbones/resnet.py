"""resnet20, resnet32, podnet32, thesis32: the residual networks for 32-pixel images that the field compares on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw_plugins.backbones._resnet import ResidualNetwork


class WidthOptions(Options):
    """Options of podnet32."""

    width: int = Field(16, ge=1, le=1024, description="channels of the first stage; the paper's networks have 16")


class FinalReluOptions(WidthOptions):
    """Options that resnet20, resnet32 and thesis32 have in common."""

    final_relu: bool = Field(
        True,
        description="a ReLU after the last addition; UCIR's and PODNet's networks have none, so that features can be "
        "negative",
    )


class ResNetOptions(FinalReluOptions):
    """Options of resnet20 and resnet32."""

    shortcut: Literal["padded", "convolution"] = Field(
        "padded",
        description="where the shape changes: every second position and channels of zeros, or a 1x1 convolution, as in "
        "UCIR's code",
    )


class Thesis32Options(FinalReluOptions):
    """Options of thesis32."""

    inner_relu: bool = Field(
        True,
        description="a ReLU after every addition before the last one; false: after that of each stage's first block "
        "alone, as in the thesis' code",
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

        options, projected = self.options, self.options.shortcut == "convolution"
        return ResNet(channels, self.blocks, options.width, final_relu=options.final_relu, projected=projected)


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
    is 1.8 times as large as resnet32, with which it is not to be compared as if only gates set them apart. A ReLU
    follows every addition, as He et al. have it; the thesis' code is `inner_relu = false` and `final_relu = false`.
    """

    offers = ResNet20.offers

    def __init__(self, options: Thesis32Options) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels."""
        from lwmfw_plugins.backbones import _resnet

        options = self.options
        return _resnet.Thesis32(channels, options.width, final_relu=options.final_relu, inner_relu=options.inner_relu)


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Backbone("resnet20", ResNet20, ResNetOptions)
    yield Backbone("resnet32", ResNet32, ResNetOptions)
    yield Backbone("podnet32", PodNet32, WidthOptions)
    yield Backbone("thesis32", Thesis32, Thesis32Options)
