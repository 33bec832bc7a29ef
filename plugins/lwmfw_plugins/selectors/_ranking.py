"""What selectors that rank by features share: new classes are ranked, old ones keep the order they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Selection, Step

Rank = Callable[["Tensor", int], "Tensor"]
"""Normalised features (n, D) of one class and a count -> positions (count,), int64, the most important first."""


def select_ranked(run: Run, step: Step, candidates: ImageSet, quota: Mapping[int, int], rank: Rank) -> Selection:
    """Each class's quota, from new classes as they are ranked and from old ones as the memory holds them.

    No features of exemplars are needed: a selection that is cut short is the selection of fewer (iCaRL, algorithm 5).
    """
    from lwmfw import Selection

    positions = class_positions(candidates, step.seen_classes)
    chosen = {label: positions[label][: quota[label]] for label in step.old_classes}
    for label, features in class_features(run, candidates, step.new_classes).items():
        chosen[label] = positions[label][rank(features, quota[label])]
    return Selection(chosen)


def class_positions(images: ImageSet, classes: range) -> dict[int, Tensor]:
    """Class -> where its images stand, int64, for the first classes of all."""
    import torch

    counts = torch.bincount(images.labels.cpu(), minlength=classes.stop)
    return dict(zip(classes, torch.arange(len(images)).split(counts.tolist()), strict=True))


def class_features(run: Run, images: ImageSet, classes: range) -> dict[int, Tensor]:
    """Class -> its images' features (n, D), L2-normalised, from one pass over the images of consecutive classes.

    They are float64 and on the CPU: greedy choices hang on the last bits, and are to be the same on every device.
    """
    import torch
    from torch.nn.functional import normalize

    images = images.of_classes(classes)
    features = normalize(run.features(images).cpu().double())
    counts = torch.bincount(images.labels.cpu(), minlength=classes.stop)[classes.start :]
    return dict(zip(classes, features.split(counts.tolist()), strict=True))
