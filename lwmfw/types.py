"""The values that hooks and components exchange.

Shapes: B images of a batch, C channels, H and W height and width, D features, N classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """A stretch of training inside a step: the keys of [training], and what a phase of a component's own can change.

    Attributes:
        balanced: whether it shows as many images of new classes as the memory will keep, beside the exemplars.
        penalties: whether the penalties' terms are part of its loss.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    milestones: list[float]
    gamma: float
    balanced: bool = False
    penalties: bool = True


@dataclass(frozen=True)
class Images:
    """Images in memory, sorted by class.

    Attributes:
        pixels: (N, C, H, W), uint8.
        labels: (N,), int64.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """C."""
        return self.pixels.shape[1]

    @property
    def size(self) -> int:
        """Height in pixels."""
        return self.pixels.shape[2]

    def of_classes(self, classes: range) -> Images:
        """The images of consecutive classes, as a view."""
        first, last = _bounds(self.labels, classes)
        return Images(self.pixels[first:last], self.labels[first:last])

    def select(self, index: Tensor) -> Images:
        """The images at positions (M,), int64, in that order."""
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> Images:
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


class StoredImage(NamedTuple):
    """An image as the memory stores it, height and width in pixels."""

    encoded: bytes
    height: int
    width: int


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay in their files, sorted by class, and are decoded whenever they are shown.

    Training cuts out a random part of an image (8 % to all of its area, sides 3:4 to 4:3) and resizes it to `size`;
    evaluation resizes the shorter side to `resize` and cuts `size` out of the centre. Decoded images are uint8 RGB.

    Attributes:
        paths: of N files; in place of a path, an exemplar.
        labels: (N,), int64.
        size: height and width of a decoded image, in pixels.
        resize: at least `size`, in pixels.
        codec: decodes exemplars.
    """

    paths: Sequence[str | StoredImage]
    labels: Tensor
    size: int
    resize: int
    codec: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Three, whatever the files hold."""
        return 3

    def of_classes(self, classes: range) -> ImageFiles:
        """The files of consecutive classes."""
        first, last = _bounds(self.labels, classes)
        return replace(self, paths=self.paths[first:last], labels=self.labels[first:last])

    def select(self, index: Tensor) -> ImageFiles:
        """The files at positions (M,), int64, in that order."""
        return replace(self, paths=[self.paths[i] for i in index.tolist()], labels=self.labels[index])

    def to(self, device: torch.device) -> ImageFiles:
        """The same files, their labels on a device: where the images go once they are decoded."""
        return replace(self, labels=self.labels.to(device))


ImageSet = Images | ImageFiles
"""Images, wherever they are. Both kinds have labels, channels, size, of_classes, select and to."""


def _bounds(labels: Tensor, classes: range) -> tuple[int, int]:
    """Where consecutive classes begin and end in sorted labels."""
    bounds = torch.tensor([classes.start, classes.stop], device=labels.device)
    first, last = torch.searchsorted(labels, bounds).tolist()
    return first, last


@dataclass(frozen=True)
class Selection:
    """The exemplars that a selector chose, and that refiners changed.

    Attributes:
        indices: class -> positions among the candidates (K,), int64, the most important first.
        pixels: class -> what is stored in the place of those candidates (K, C, H, W), uint8; a class that is not here
            is stored as it is. Images in memory only.
    """

    indices: dict[int, Tensor]
    pixels: dict[int, Tensor] = field(default_factory=dict)

    @property
    def order(self) -> Tensor:
        """Positions among the candidates (N,), class by class."""
        return torch.cat([self.indices[label] for label in sorted(self.indices)])

    def images(self, candidates: ImageSet) -> ImageSet:
        """What was selected, class by class, as refiners left it."""
        chosen = candidates.select(self.order.to(candidates.labels.device))
        if not self.pixels or isinstance(chosen, ImageFiles):
            return chosen
        pixels = chosen.pixels.clone()
        for label, changed in self.pixels.items():
            pixels[chosen.labels == label] = changed.to(pixels)
        return Images(pixels, chosen.labels)


@dataclass(frozen=True)
class DataSet:
    """What a data component loads.

    Attributes:
        train: training images, labels as the data set has them.
        test: test images.
        class_names: one per label.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, likewise.
        padding: zeros around an image in memory before it is cropped back at random; 0: no cropping.
        flip: whether training images are mirrored at random.
        skipped: files that were left out because they cannot be read.
    """

    train: ImageSet
    test: ImageSet
    class_names: list[str]
    mean: list[float]
    std: list[float]
    padding: int = 0
    flip: bool = False
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """One batch of training.

    Attributes:
        images: (B, C, H, W), float32, augmented and normalised.
        labels: (B,), int64, positions in the class order.
        from_memory: (B,), bool: the image is an exemplar.
    """

    images: Tensor
    labels: Tensor
    from_memory: Tensor


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
