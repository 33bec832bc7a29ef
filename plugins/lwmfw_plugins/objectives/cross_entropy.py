"""cross_entropy: one softmax over the classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Objective, ObjectiveOptions, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy:
    """Softmax cross-entropy over the classes, averaged over the batch."""

    least_classes = 2

    def __init__(self, options: ObjectiveOptions) -> None:
        pass

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar for logits (B, N) and labels (B,) in 0..N-1."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Objective("cross_entropy", CrossEntropy)
