"""What a model finds in images: their features, and who their nearest class mean is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lwmfw.model.growing import Model, evaluating


def features_of(model: Model, batches: Iterable[tuple[Tensor, Tensor]], *, mirrored: bool = False) -> Tensor:
    """The features of images, in evaluation mode.

    Args:
        model: in any mode, which it keeps.
        batches: normalised images (B, C, H, W) and labels.
        mirrored: whether the images are mirrored left to right.

    Returns:
        (N, D), float32.
    """
    with evaluating(model):
        return torch.cat([model(images.flip(-1) if mirrored else images).features for images, _ in batches])


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
