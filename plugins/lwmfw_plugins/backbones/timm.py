"""timm: the models of the library timm, without their classifier. `pip install "lwmfw[timm]"` brings the library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Backbone, Component, Field, File, Options, UserError, did_you_mean, hookimpl
from lwmfw_plugins._installed import require

if TYPE_CHECKING:
    from torch import nn

POOLED = (
    "convmixer", "darknet", "densenet", "dla", "dpn", "ecaresnet", "efficientnet", "mnasnet", "mobilenetv2", "regnet",
    "repvgg", "res2net", "resnest", "resnet", "resnext", "rexnet", "seresnet", "seresnext", "skresnet", "test_resnet",
    "tf_efficientnet", "wide_resnet",
)  # fmt: skip
"""Beginnings of the names of models that classify the spatial mean of a map."""


class TimmOptions(Options):
    """Options of timm."""

    model: str = Field("resnet18", pattern=r"^\w{1,80}$", description="which model, as timm.list_models names it")
    weights: File = Field(
        "", description=".safetensors file with timm's parameter names; empty: random initial weights"
    )


class Timm:
    """Any timm model (needs the extra lwmfw[timm]); the features are the input of its classifier.

    Convolutional networks of the well-known families, such as resnet, densenet and efficientnet, also offer the map
    whose spatial mean the features are.
    """

    def __init__(self, options: TimmOptions) -> None:
        require("timm")
        self.options = options
        self.offers = frozenset({"features", "pooled"} if options.model.startswith(POOLED) else {"features"})

    def build(self, channels: int) -> nn.Module:
        """The network for images of so many channels.

        Raises:
            UserError: no such model, or weights that are missing or do not fit.
        """
        import timm

        from lwmfw_plugins.backbones._timm import build_network

        name, known = self.options.model, timm.list_models()
        if name not in known:
            hint = did_you_mean(name, known) or "; timm.list_models() lists them"
            raise UserError(f"backbone.model: timm has no model '{name}'{hint}")
        model = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
        return build_network(model, self.options.weights, pooled="pooled" in self.offers)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("timm", Timm, TimmOptions)
