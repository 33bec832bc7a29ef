"""The residual networks with CBAM in every block: resnet18-cbam, resnet20-cbam, resnet32-cbam, thesis32-cbam."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lwmfw import Backbone, Component, Field, Options, hookimpl
from lwmfw_plugins.backbones.resnet import ResNet20, ResNet32, ResNetOptions, Thesis32, Thesis32Options
from lwmfw_plugins.backbones.resnet18 import ResNet18, ResNet18Options

if TYPE_CHECKING:
    from lwmfw_plugins.backbones._resnet import ResidualNetwork


class CbamOptions(Options):
    """Options of the gates."""

    ratio: int = Field(16, ge=1, le=1024, description="channels per hidden unit of a channel gate")
    floor: int = Field(4, ge=1, le=1024, description="fewest hidden units; 1 as in the thesis, 16/16 in stage 1")
    form: Literal["original", "light"] = Field(
        "original",
        description="original: the authors', with biases and a BatchNorm in the gates; light: the thesis', "
        "with neither",
    )


class ResNetCbamOptions(CbamOptions, ResNetOptions):
    """Options of resnet20-cbam and resnet32-cbam."""


class Thesis32CbamOptions(CbamOptions, Thesis32Options):
    """Options of thesis32-cbam."""


class ResNet18CbamOptions(CbamOptions, ResNet18Options):
    """Options of resnet18-cbam."""


class ResNet20Cbam:
    """resnet20 with a channel and a spatial gate in every block (CBAM, Woo et al., ECCV 2018)."""

    offers = ResNet20.offers
    plain: ClassVar[Any] = ResNet20

    def __init__(self, options: Any) -> None:
        self.options = options

    def build(self, channels: int) -> ResidualNetwork:
        """The network for images of so many channels; its random weights but the gates' are the plain network's."""
        from lwmfw_plugins.backbones._cbam import add_gates

        network: ResidualNetwork = self.plain(self.options).build(channels)
        add_gates(network, ratio=self.options.ratio, floor=self.options.floor, form=self.options.form)
        return network


class ResNet32Cbam(ResNet20Cbam):
    """resnet32 with a channel and a spatial gate in every block (CBAM, Woo et al., ECCV 2018)."""

    plain = ResNet32


class Thesis32Cbam(ResNet20Cbam):
    """thesis32 with a channel and a spatial gate in every block (CBAM, Woo et al., ECCV 2018)."""

    plain = Thesis32


class ResNet18Cbam(ResNet20Cbam):
    """resnet18 with a channel and a spatial gate in every block (CBAM, Woo et al., ECCV 2018)."""

    plain = ResNet18


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of this file."""
    yield Backbone("resnet18-cbam", ResNet18Cbam, ResNet18CbamOptions)
    yield Backbone("resnet20-cbam", ResNet20Cbam, ResNetCbamOptions)
    yield Backbone("resnet32-cbam", ResNet32Cbam, ResNetCbamOptions)
    yield Backbone("thesis32-cbam", Thesis32Cbam, Thesis32CbamOptions)
