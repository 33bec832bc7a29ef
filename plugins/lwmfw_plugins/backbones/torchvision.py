"""torchvision: the classification models of torchvision, without their classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Backbone, Component, Field, File, Options, UserError, did_you_mean, hookimpl

if TYPE_CHECKING:
    from torch import nn

POOLED = (
    "resnet", "resnext", "wide_resnet", "regnet", "densenet", "efficientnet", "mnasnet", "mobilenet_v2", "shufflenet",
    "squeezenet", "swin",
)  # fmt: skip
"""Beginnings of the names of models that classify the spatial mean of a map."""

AUXILIARY = ("googlenet", "inception_v3")


class TorchvisionOptions(Options):
    """Options of torchvision."""

    model: str = Field(
        "resnet18", pattern=r"^\w{1,80}$", description="which model, as torchvision.models.list_models names it"
    )
    weights: File = Field(
        "", description=".safetensors file with torchvision's parameter names; empty: random initial weights"
    )


class Torchvision:
    """Any torchvision classification model; the features are the input of its last layer.

    Residual networks offer the ends of their stages as maps; other models that classify the spatial mean of a map
    offer that one. The rest, such as vgg and vit, offers features alone. One-channel images are repeated to three.
    """

    def __init__(self, options: TorchvisionOptions) -> None:
        if options.model in AUXILIARY:
            raise UserError(
                f"backbone.model: {options.model} is trained by auxiliary classifiers, which a growing set of classes "
                "leaves without a meaning; choose another"
            )
        self.options = options
        pooled = options.model.startswith(POOLED)
        self.offers = frozenset({"features", "maps", "pooled"} if pooled else {"features"})

    def build(self, channels: int) -> nn.Module:
        """The network for images of one or three channels.

        Raises:
            UserError: no such model, weights that are missing or do not fit, or other images.
        """
        from torchvision import models

        from lwmfw_plugins.backbones._torchvision import build_network

        name, known = self.options.model, models.list_models(module=models)
        if name not in known:
            hint = did_you_mean(name, known) or "; `lwmfw plugins torchvision` says where they are listed"
            raise UserError(f"backbone.model: torchvision has no classification model '{name}'{hint}")
        if channels not in (1, 3):
            raise UserError(
                f"backbone.use: torchvision's models see 1 or 3 channels, the images have {channels}; choose timm"
            )
        return build_network(models.get_model(name, weights=None), self.options.weights)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("torchvision", Torchvision, TorchvisionOptions)
