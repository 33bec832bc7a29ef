"""What a model finds in images: their features, and who their nearest class mean is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lwmfw.model.growing import Model, evaluating


def features_of(model: Model, batches: Iterable[tuple[Tensor, Tensor]], size: int, *, mirrored: bool = False) -> Tensor:
    """The features of images, in evaluation mode.

    Every batch has one shape, a short one being filled up: with another, above all with that of a single image,
    convolutions may round otherwise, and the bits of an image's features would depend on the images beside it.

    Args:
        model: in any mode, which it keeps.
        batches: normalised images (B, C, H, W) and labels.
        size: B of a whole batch.
        mirrored: whether the images are mirrored left to right.

    Returns:
        (N, D), float32.
    """
    with evaluating(model):
        shown = ((images.flip(-1) if mirrored else images) for images, _ in batches)
        return torch.cat([model(_filled(images, size)).features[: len(images)] for images in shown])


def _filled(images: Tensor, size: int) -> Tensor:
    """A batch of `size` images, the last one over and over where there are fewer."""
    missing = size - len(images)
    if not missing or not len(images):
        return images
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]).contiguous(
        memory_format=torch.channels_last
    )


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The directions of the mean normalised features of each class (iCaRL, Rebuffi et al., CVPR 2017, algorithm 1).

    Args:
        features: (N, D).
        labels: (N,), int64, 0..classes-1.
        classes: how many.

    Returns:
        (classes, D), of length 1; zero for a class without images.
    """
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, normalize(features))
    return normalize(sums)
