"""torchvision's models as backbones: in stages where they pool a map, else whole with the last layer cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from lwmfw import Features
from lwmfw_plugins.backbones._weights import load_weights


class Staged(nn.Module):
    """Stages one after the other, then the spatial mean as features.

    Dropout between the mean and the classifier belongs to the classifier that was cut off, and is gone with it.
    """

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Features:
        """Features and the ends of the stages."""
        x, maps = three_channels(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(x.mean((2, 3)), maps, [], x)


class Whole(nn.Module):
    """A model that returns features (B, D) and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Features:
        """Features."""
        return Features(self.model(three_channels(images)), [], [], None)


def build_network(model: nn.Module, weights: str) -> nn.Module:
    """A model without its classifier, its weights read from a file if one is named.

    Raises:
        UserError: the file is missing or does not fit.
    """
    classifier = last_layer(model)
    model.set_submodule(classifier, nn.Identity())
    if weights:
        load_weights(model, weights, without=[classifier])
    stages = stages_of(model)
    return Staged(stages) if stages else Whole(model)


def last_layer(model: nn.Module) -> str:
    """The path of the last Linear; of the last convolution in squeezenet, which classifies at every position."""
    kind = nn.Conv2d if isinstance(model, models.SqueezeNet) else nn.Linear
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, kind)]
    return names[-1]


def stages_of(model: Any) -> list[nn.Module]:
    """What a model computes before it pools a map and classifies the mean; empty if it does something else."""
    match model:
        case models.ResNet():
            stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
            return [nn.Sequential(*stem, *model.layer1), model.layer2, model.layer3, model.layer4]
        case models.RegNet():
            first, *others = model.trunk_output
            return [nn.Sequential(model.stem, first), *others]
        case models.ShuffleNetV2():
            return [
                nn.Sequential(model.conv1, model.maxpool, model.stage2),
                model.stage3,
                nn.Sequential(*model.stage4, *model.conv5),
            ]
        case models.DenseNet():
            return [nn.Sequential(model.features, nn.ReLU())]
        case models.SwinTransformer():
            return [nn.Sequential(model.features, model.norm, model.permute)]
        case models.MNASNet():
            return [model.layers]
        case models.EfficientNet() | models.MobileNetV2() | models.SqueezeNet():
            return [model.features]
    return []


def three_channels(images: Tensor) -> Tensor:
    """Images of one channel three times over, others as they are: (B, 3, H, W)."""
    return images.expand(-1, 3, -1, -1)
