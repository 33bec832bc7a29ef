"""A model of timm as a backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lwmfw import Features
from lwmfw_plugins.backbones._weights import load_weights


class TimmNetwork(nn.Module):
    """A model made without classes, in timm's two halves.

    Args:
        model: its forward_features gives maps or tokens, its forward_head features (B, D).
        pooled: whether features are the spatial mean of what forward_features gives.
    """

    def __init__(self, model: Any, pooled: bool) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, images: Tensor) -> Features:
        """Features, and their map if there is one."""
        inner = self.model.forward_features(images)
        return Features(self.model.forward_head(inner, pre_logits=True), [], [], inner if self.pooled else None)


def build_network(model: Any, weights: str, *, pooled: bool) -> nn.Module:
    """A model made without classes, its weights read from a file if one is named.

    Raises:
        UserError: the file is missing or does not fit.
    """
    if weights:
        classifier = model.pretrained_cfg["classifier"]
        load_weights(model, weights, without=[classifier] if isinstance(classifier, str) else classifier)
    return TimmNetwork(model, pooled)
