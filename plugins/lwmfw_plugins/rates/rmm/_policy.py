"""What RMM's two actions come to in numbers of images, and the lists of actions that PyCIL ships."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Policy(NamedTuple):
    """Actions for step 2, 3, ...; the last of each holds on.

    Attributes:
        give_up: m, the share of a step's new images that makes room for exemplars.
        favour: c, the share of an even quota by which classes of low loss have more, and those of high loss less.
    """

    give_up: Sequence[float]
    favour: Sequence[float]


POLICIES = {
    "icarl": Policy([0.8, 0.8, 0.6, 0.6, 0.6, 0.6], [0.0, 0.0, 0.1, 0.1, 0.1, 0.0]),
    "foster": Policy([0.3, 0.3, 0.3, 0.4, 0.4, 0.4], [0.0, 0.0, 0.1, 0.1, 0.1, 0.0]),
}
"""PyCIL's lists for CIFAR-100, 50 + 5 x 10: rmm-icarl and rmm-foster."""


def action(actions: Sequence[float], step: int) -> float:
    """The action for a step, counted from 1, which itself has none: it knows no exemplars."""
    return actions[min(step - 2, len(actions) - 1)] if step > 1 else 0.0


def given_up(images: int, share: float) -> int:
    """How many of a class's new images make room for exemplars, rounded; one image stays."""
    return max(0, min(images - 1, round(share * images)))


def left_after(labels: Tensor, numbers: Mapping[int, int], rng: Generator) -> Tensor:
    """Which images a step is trained on: those of other classes, and what is not given up of its new ones.

    Args:
        labels: (N,), int64, on the CPU.
        numbers: class -> how many of its images are given up.
        rng: draws which, without repetition.

    Returns:
        Positions, int64, in order.
    """
    import torch

    stays = torch.ones(len(labels), dtype=torch.bool)
    for label, number in numbers.items():
        members = (labels == label).nonzero().flatten()
        stays[members[torch.randperm(len(members), generator=rng)[:number]]] = False
    return stays.nonzero().flatten()


def class_losses(logits: Tensor, labels: Tensor) -> list[float]:
    """Mean cross-entropy of each class's images.

    Args:
        logits: (N, classes).
        labels: (N,), int64, 0..classes-1.

    Returns:
        One for each class; nan where there is no image.
    """
    import torch
    from torch.nn.functional import cross_entropy

    losses, labels = cross_entropy(logits, labels, reduction="none").cpu().double(), labels.cpu()
    sums = torch.zeros(logits.shape[1], dtype=torch.float64).index_add_(0, labels, losses)
    found: list[float] = (sums / torch.bincount(labels, minlength=len(sums))).tolist()
    return found


def class_weights(losses: Sequence[float], favour: float) -> list[float]:
    """1 - c for a class whose loss is above the median, 1 + c for any other; one of no images, whose loss is nan, has
    no say in the median."""
    known = [loss for loss in losses if not math.isnan(loss)]
    middle = median(known) if known else math.nan
    return [1 - favour if loss > middle else 1 + favour for loss in losses]


def shared_out(total: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """A number for each class, in all the total or all there are: one each, and the rest in proportion to the weights.

    What a class cannot use goes to the others, in the same proportion. What rounding down leaves over goes to the
    largest remainders, of equal ones the first. Where there is not one for each class, all is shared out by weight.

    Args:
        total: 0 or more.
        weights: one for each class, above 0.
        most: the largest number of each class.
    """
    total, present = min(total, sum(most)), [min(1, bound) for bound in most]
    each = present if total >= sum(present) else [0] * len(most)
    shares = filled(total - sum(each), weights, [bound - one for bound, one in zip(most, each, strict=True)])
    numbers = [one + math.floor(share) for one, share in zip(each, shares, strict=True)]
    first = sorted(range(len(shares)), key=lambda i: math.floor(shares[i]) - shares[i])
    for i in first[: total - sum(numbers)]:
        numbers[i] += 1
    return numbers


def filled(total: int, weights: Sequence[float], most: Sequence[int]) -> list[Fraction]:
    """The exact shares of a total no larger than all of `most`: one factor times each weight, cut off at its most."""
    exact, shares = [Fraction(weight) for weight in weights], [Fraction()] * len(weights)
    left, weight = Fraction(total), sum(exact)
    for i in sorted(range(len(exact)), key=lambda i: most[i] / exact[i]):  # those that are cut off come first
        shares[i] = min(Fraction(most[i]), left * exact[i] / weight)
        left, weight = left - shares[i], weight - exact[i]
    return shares
