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
        closed form, for any head. Differentiable with respect to features and head if the logits have a gradient, as
        those of a head on a frozen backbone have.

        Args:
            classes: (B,), int64, positions in the class order.

        Returns:
            (B, D).
        """
        differentiable = self.logits.requires_grad
        with torch.enable_grad():
            features = self.features if self.features.requires_grad else self.features.detach().requires_grad_()
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


class Form(NamedTuple):
    """What the answers of a backbone have in common, whatever they are asked: heads and penalties are built for it."""

    width: int
    maps: int
    raw_maps: int
    pooled: bool

    @classmethod
    def of(cls, body: Features) -> Form:
        """That of an answer."""
        return cls(body.features.shape[1], len(body.maps), len(body.raw_maps), body.pooled is not None)

    def __str__(self) -> str:
        pooled = "a" if self.pooled else "no"
        return f"features of {self.width}, {self.maps} maps, {self.raw_maps} raw_maps and {pooled} pooled map"


def checked_features(answer: object, images: Tensor, form: Form | None = None) -> Features:
    """What a backbone answered for images (B, C, H, W), if it is that.

    Args:
        answer: of its forward.
        images: what it was given.
        form: of its first answer.

    Raises:
        WrongAnswer: it is something else, or of another form than at first.
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
        if not _fits(value, images, axes) or (name == "features" and not _precise(answer.features, images)):
            shape = "(B, D)" if axes == 2 else "(B, C, H, W)"
            sort = images.dtype if name == "features" else "floating values"
            raise WrongAnswer(
                "backbone", f"returned {_told(value)} in {name} for {_told(images)}; return {sort} of shape {shape}"
            )
    if form is not None and Form.of(answer) != form:
        raise WrongAnswer("backbone", f"returned {Form.of(answer)}, where it began with {form}; keep to one form")
    return answer


def checked_logits(answer: object, features: Tensor, classes: int) -> Tensor:
    """What a classifier answered for features (B, D), if it is a logit for each of the classes.

    Raises:
        WrongAnswer: it is something else.
    """
    fits = isinstance(answer, Tensor) and _fits(answer, features, 2) and answer.shape[1] == classes
    if not fits or answer.dtype != features.dtype:  # type: ignore[attr-defined]
        wanted = f"{features.dtype} of shape {(len(features), classes)}"
        raise WrongAnswer("classifier", f"returned {_told(answer)} from forward; return logits, {wanted}")
    return answer  # type: ignore[return-value]


def _fits(value: object, like: Tensor, axes: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == axes
        and len(value) == len(like)
        and value.is_floating_point()
        and value.device == like.device
    )


def _precise(value: Tensor, images: Tensor) -> bool:
    """Whether features are as precise as the images, or as the backbone was told to compute."""
    return value.dtype == images.dtype or (
        torch.is_autocast_enabled(images.device.type) and value.dtype == torch.get_autocast_dtype(images.device.type)
    )


def state_fault(network: torch.nn.Module) -> str:
    """What of a network's state no checkpoint keeps; empty: nothing.

    Raises:
        Exception: of any kind, as the network's own state does.
    """
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            return f"has '{name}' in its state, which is no tensor; checkpoints keep tensors alone"
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "without values" if value.is_meta else "quantized" if value.is_quantized else "sparse"
            return f"has '{name}' in its state, a tensor that is {kind}; checkpoints keep ordinary tensors alone"
    return ""


def _told(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape {tuple(value.shape)} on {value.device}"
