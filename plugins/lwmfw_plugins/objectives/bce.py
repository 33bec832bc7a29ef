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
        labels: (B,), int64, below N; below 0: none of these classes, every decision is no.

    Returns:
        A scalar.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = (labels >= 0)[:, None].to(logits.dtype)
    targets = logits.new_zeros(logits.shape).scatter_(1, labels.clamp(min=0)[:, None], known)
    return binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


class BinaryCrossEntropy:
    """Binary cross-entropy of a sigmoid per class, summed over classes and averaged over the batch.

    Over the new classes an exemplar is none of them, as iCaRL trains it beside a distillation of the old ones.
    """

    none_of_these = True

    def __init__(self, options: ObjectiveOptions) -> None:
        self.loss = binary_cross_entropy


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Objective("bce", BinaryCrossEntropy)
