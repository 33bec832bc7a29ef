"""What a model finds in images: their features, and who their nearest class mean is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lwmfw.model.growing import Model, evaluating


def feature_batches(
    model: Model, batches: Iterable[tuple[Tensor, Tensor]], size: int, *, mirrored: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of images, batch by batch, as the mode that the model is in has them.

    The model sees batches of one shape alone, a short one being filled up: with another, above all with that of a
    single image, convolutions may round otherwise, and the bits of an image's features would depend on the images
    beside it. Nor are kernels made anew, and kept, for every number of images that a step happens to have.

    Args:
        model: whose features.
        batches: normalised images (B, C, H, W) and labels.
        size: B of a whole batch.
        mirrored: whether the images are mirrored left to right.

    Yields:
        Features (B, D), float32, and labels.
    """
    for images, labels in batches:
        shown = images.flip(-1) if mirrored else images
        yield model(_filled(shown, size)).features[: len(images)], labels


def features_of(model: Model, batches: Iterable[tuple[Tensor, Tensor]], size: int, *, mirrored: bool = False) -> Tensor:
    """The features of images, (N, D), in evaluation mode: those of `feature_batches`, whatever mode the model is in."""
    with evaluating(model):
        return torch.cat([features for features, _ in feature_batches(model, batches, size, mirrored=mirrored)])


def _filled(images: Tensor, size: int) -> Tensor:
    """A batch of `size` images, which come again in turn where there are fewer."""
    if not 0 < len(images) < size:
        return images
    again = torch.arange(size, device=images.device) % len(images)
    return images[again].contiguous(memory_format=torch.channels_last)


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
