"""What read-outs from sums have in common: new images are taken in after each step, and scores come of a solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Step
    from lwmfw_plugins.readouts._sums import Sums


class FromSums(ABC):
    """A read-out of which `solve` makes of the sums what `scores` needs.

    An image counts once, as it is, in the step that brings its class; an exemplar is not taken in again.
    """

    exact = True

    def __init__(self) -> None:
        self.sums: Sums | None = None

    @hookimpl
    def after_training(self, run: Run, step: Step, data: ImageSet) -> None:
        """Take the new images in, and solve anew."""
        from lwmfw_plugins.readouts._sums import Sums

        new = data.of_classes(step.new_classes)
        h = self.hidden(run.features(new))
        if self.sums is None:
            self.sums = Sums.none(h.shape[1])
        self.sums.add(h, new.labels, len(step.seen_classes))
        self.solve(self.sums)

    def hidden(self, features: Tensor) -> Tensor:
        """What sums are taken of, (N, M), whole numbers, float64, for features (N, D)."""
        from lwmfw_plugins.readouts._sums import rounded

        return rounded(features)

    @abstractmethod
    def solve(self, sums: Sums) -> None:
        """Make of the sums what `scores` needs."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, and what counts as the read-out's bytes."""
        return self.sums.state() if self.sums else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        from lwmfw_plugins.readouts._sums import Sums

        self.sums = Sums.of(state) if state else None
        if self.sums:
            self.solve(self.sums)
