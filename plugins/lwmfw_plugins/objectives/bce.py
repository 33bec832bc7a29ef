"""bce: one binary decision per class, as in iCaRL and LwF-MC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Objective, ObjectiveOptions, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each class's sigmoid against one-hot labels, summed over classes, batch mean.

    Args:
        logits: (B, N).
        labels: (B,), int64, 0..N-1.

    Returns:
        A scalar.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    targets = logits.new_zeros(logits.shape).scatter_(1, labels[:, None], 1.0)
    return binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


class BinaryCrossEntropy:
    """Sigmoid per class, summed over classes, averaged over the batch."""

    def __init__(self, options: ObjectiveOptions) -> None:
        self.loss = binary_cross_entropy


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Objective("bce", BinaryCrossEntropy)
