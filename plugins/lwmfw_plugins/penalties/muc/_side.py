"""Side classifiers of a step: K linear heads that agree on its images and not on others, and the other images."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, linear

from lwmfw import ImageFiles, Images, ImageSet, decode_images

_BATCH = 128  # of the training of side classifiers, as are the next three: those of the published code
_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
_DROPS = (4 / 8, 6 / 8, 7 / 8)  # of the epochs; there the rate falls to a tenth
_RESIZED = 500  # images at a time


class SideHeads(nn.Module):
    """K linear heads over the N classes of one step.

    Args:
        weight: (K, N, D).
        bias: (K, N).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @classmethod
    def drawn(cls, heads: int, classes: int, features: int, rng: Generator) -> SideHeads:
        """Heads as torch draws those of a linear layer: uniform within D^-1/2 of zero."""
        rows = torch.rand(heads, classes, features + 1, generator=rng).mul_(2).sub_(1).mul_(features**-0.5)
        return cls(rows[..., :-1].clone(), rows[..., -1].clone())

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K, N) for features (B, D)."""
        logits: Tensor = linear(features, self.weight.flatten(0, 1), self.bias.flatten())
        return logits.view(len(features), *self.bias.shape)


def discrepancy(logits: Tensor) -> Tensor:
    """How much heads differ: over pairs i < j, the sum of the mean over images and classes of |pᵢ - pⱼ|, p a softmax.

    Args:
        logits: (B, K, N).

    Returns:
        A scalar, not negative, zero for a single head.
    """
    p = logits.softmax(2)
    return (p[:, :, None] - p[:, None]).abs().mean((0, 3)).sum() / 2  # every pair is there twice


def side_loss(own: Tensor, labels: Tensor, other: Tensor, weight: float) -> Tensor:
    """What side classifiers are trained with: the sum of their cross-entropies - weight * discrepancy on other images.

    Args:
        own: (B, K, N), logits for images of the step.
        labels: (B,), int64, 0..N-1.
        other: (M, K, N), logits for other images.
        weight: of the discrepancy.

    Returns:
        A scalar.
    """
    heads = own.shape[1]
    answers = labels.repeat_interleave(heads)
    return heads * cross_entropy(own.flatten(0, 1), answers) - weight * discrepancy(other)


def fit(
    heads: SideHeads,
    features: Tensor,
    labels: Tensor,
    other: Tensor,
    *,
    epochs: int,
    lr: float,
    weight: float,
    rng: Generator,
) -> None:
    """Train side classifiers on features, which stay as they are; beside every batch as many of other images are drawn.

    Args:
        heads: what is trained.
        features: (S, D), of the images of the step.
        labels: (S,), int64, 0..N-1.
        other: (M, D), of other images.
        epochs: passes over the images of the step.
        lr: in the first half of them.
        weight: of the discrepancy.
        rng: on the CPU.
    """
    optimizer = torch.optim.SGD(heads.parameters(), lr, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.1 ** sum(epoch >= math.ceil(drop * epochs) for drop in _DROPS)
        order = torch.randperm(len(features), generator=rng).to(features.device)
        beside = torch.randint(len(other), (len(features),), generator=rng).to(features.device)
        for some, others in zip(order.split(_BATCH), beside.split(_BATCH), strict=True):
            optimizer.zero_grad()
            side_loss(heads(features[some]), labels[some], heads(other[others]), weight).backward()
            optimizer.step()
    optimizer.zero_grad()


def some_of(images: ImageSet, count: int, rng: Generator) -> Images:
    """At most so many images, drawn at random, in memory."""
    chosen = images.select(torch.randperm(len(images), generator=rng)[:count])
    return decode_images(chosen) if isinstance(chosen, ImageFiles) else chosen


def in_form(pixels: Tensor, channels: int, size: int) -> Tensor:
    """Images as another data set has them: colours averaged to grey or grey repeated, and bilinear in size.

    Args:
        pixels: (M, C, H, W), uint8.
        channels: what C becomes.
        size: what H and W become.

    Returns:
        (M, channels, size, size), uint8.
    """
    return torch.cat([_formed(some, channels, size) for some in pixels.split(_RESIZED)])


def _formed(pixels: Tensor, channels: int, size: int) -> Tensor:
    images = pixels.float()
    if images.shape[1] != channels:
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if images.shape[2:] != (size, size):
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8)
