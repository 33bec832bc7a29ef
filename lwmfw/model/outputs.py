"""What networks answer.

Shapes: B images of a batch, C channels, H and W height and width, D features, N classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lwmfw.errors import WrongAnswer


class Features(NamedTuple):
    """What a backbone's forward returns. What a backbone does not offer stays empty.

    Attributes:
        features: (B, D), what the classifier sees.
        maps: stage ends (B, C, H, W) as the next stage receives them.
        raw_maps: the same before their last ReLU; the maps themselves where none follows.
        pooled: the map whose spatial mean is `features`.
    """

    features: Tensor
    maps: list[Tensor]
    raw_maps: list[Tensor]
    pooled: Tensor | None


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch. Maps have the dtype the backbone computes in, which can be bfloat16.

    Attributes:
        logits: (B, N), float32, one per class the model has rows for.
        features: (B, D), float32, what the classifier sees.
        maps: stage ends (B, C, H, W) as the next stage receives them.
        raw_maps: the same before their last ReLU; the maps themselves where none follows.
        pooled: the map whose spatial mean is `features`, None if there is none.
        head: the classifier, features -> logits.
        graph: of outputs without gradients, the logits and maps they were detached from, if they were kept.
    """

    logits: Tensor
    features: Tensor
    maps: list[Tensor]
    raw_maps: list[Tensor]
    pooled: Tensor | None
    head: Callable[[Tensor], Tensor]
    graph: tuple[Tensor, list[Tensor]] | None = None

    def channel_weights(self, classes: Tensor) -> Tensor:
        """The gradient of each image's logit `classes[i]` with respect to its features.

        Only the head is differentiated, never the backbone. Where `features` is the spatial mean of `pooled`, this
        is H*W times the gradient with respect to `pooled`, the same at every position: Grad-CAM's channel weights in
        closed form, for any head. Differentiable with respect to features and head if the features have a gradient.

        Args:
            classes: (B,), int64, positions in the class order.

        Returns:
            (B, D).
        """
        differentiable = self.features.requires_grad
        with torch.enable_grad():
            features = self.features if differentiable else self.features.detach().requires_grad_()
            scores = self.head(features).gather(1, classes[:, None]).sum()
            (weights,) = torch.autograd.grad(scores, features, create_graph=differentiable)
        return weights

    def similarities(self) -> Tensor:
        """What the classifier finds alike, before its learned scale, (B, N). Only where a component needs it."""
        return self.head.similarities(self.features)  # type: ignore[attr-defined, no-any-return]

    def map_weights(self, stage: int, classes: Tensor) -> Tensor:
        """Grad-CAM's channel weights at any stage: the spatial mean of the gradient of each image's logit
        `classes[i]` with respect to `maps[stage]`.

        Differentiable a second time if the outputs have gradients. The old model's outputs have the graph for it
        only where a component needs "old_graph". In training mode BatchNorm couples the images of a batch.

        Args:
            stage: index into `maps`.
            classes: (B,), int64, positions in the class order.

        Returns:
            (B, C).
        """
        logits, maps = self.graph or (self.logits, self.maps)
        scores = logits.gather(1, classes[:, None]).sum()
        second_order = self.logits.requires_grad
        (gradient,) = torch.autograd.grad(scores, maps[stage], create_graph=second_order, retain_graph=True)
        return gradient.mean((2, 3))

    def detached(self) -> Outputs:
        """The same values without gradients; the graph stays reachable for `map_weights` alone."""
        return Outputs(
            self.logits.detach(),
            self.features.detach(),
            [m.detach() for m in self.maps],
            [m.detach() for m in self.raw_maps],
            None if self.pooled is None else self.pooled.detach(),
            self.head,
            (self.logits, self.maps),
        )


def checked_features(answer: object, images: Tensor) -> Features:
    """What a backbone answered for images (B, C, H, W), if it is that.

    Raises:
        WrongAnswer: it is something else.
    """
    if not isinstance(answer, Features):
        raise WrongAnswer("backbone", f"returned {type(answer).__name__} from forward; return lwmfw.Features")
    parts = [("features", answer.features, 2), *(("pooled", answer.pooled, 4),) * (answer.pooled is not None)]
    for name in ("maps", "raw_maps"):
        maps = getattr(answer, name)
        if not isinstance(maps, list | tuple):
            raise WrongAnswer("backbone", f"returned {type(maps).__name__} as {name}; return a list of maps")
        parts += [(name, value, 4) for value in maps]
    for name, value, axes in parts:
        if not _fits(value, images, axes):
            shape = "(B, D)" if axes == 2 else "(B, C, H, W)"
            raise WrongAnswer(
                "backbone", f"returned {_told(value)} in {name} for {_told(images)}; return floating values {shape}"
            )
    return answer


def checked_logits(answer: object, features: Tensor, classes: int) -> Tensor:
    """What a classifier answered for features (B, D), if it is a logit for each of the classes.

    Raises:
        WrongAnswer: it is something else.
    """
    if not _fits(answer, features, 2) or answer.shape[1] != classes:  # type: ignore[attr-defined]
        wanted = (len(features), classes)
        raise WrongAnswer("classifier", f"returned {_told(answer)} from forward; return floating logits {wanted}")
    return answer  # type: ignore[return-value]


def _fits(value: object, like: Tensor, axes: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == axes
        and len(value) == len(like)
        and value.is_floating_point()
        and value.device == like.device
    )


def _told(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape {tuple(value.shape)} on {value.device}"
