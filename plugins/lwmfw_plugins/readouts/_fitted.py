"""What read-outs from sums have in common: new images are taken in after each step, and scores come of a solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lwmfw import Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Step
    from lwmfw_plugins.readouts._sums import Sums


class SumsOptions(Options):
    """Options of every read-out from sums."""

    transport: bool = Field(
        False,
        description="where a step has moved the backbone, carry the sums over to its new features by a linear map",
    )


class FromSums(ABC):
    """A read-out of which `solve` makes of the sums what `decide` needs.

    An image counts once, as it is, in the step that brings it; an exemplar is not taken in again.
    """

    exact = True
    needs = frozenset({"features"})
    apart = False  # whether the grams of classes are kept apart
    spares_first_step = True  # features are looked at before a step is trained, and left as they are

    def __init__(self, options: SumsOptions) -> None:
        self.transport = options.transport
        self.sums: Sums | None = None
        self.drift: float | None = None
        self.before: Tensor | None = None

    @hookimpl
    def before_step(self, run: Run, step: Step, data: ImageSet) -> None:
        """Look at the new images as the last step left the backbone: the sums are of such features."""
        if self.transport and self.sums:
            self.before = new_features(run, step, data)

    @hookimpl
    def after_training(self, run: Run, step: Step, data: ImageSet) -> None:
        """Carry the sums over if the backbone has moved, take the new images in, and solve anew."""
        from lwmfw_plugins.readouts._sums import Sums, carried_over

        features = new_features(run, step, data)
        h, before = self.hidden(features), self.before
        self.before = None
        if before is not None and self.sums and not before.equal(features):
            self.sums, self.drift = carried_over(self.sums, self.hidden(before), h)
        labels, classes = data.labels[len(data) - len(h) :].cpu(), step.seen_classes
        self._take_in(Sums.of_images(h, labels, len(classes), apart=self.apart), classes, 1)

    def add(self, state: Mapping[str, Any], classes: Sequence[int | None], sign: int) -> None:
        """Take in the sums of another, or with a sign of -1 take them out: exactly, as if its images were.

        Args:
            state: of a read-out with the same options on the same backbone.
            classes: which class of this one each of its classes is; None for one without images, which gets no place.
            sign: 1 or -1.
        """
        from lwmfw_plugins.readouts._sums import Sums

        self._take_in(Sums.of(state), classes, sign)

    def _take_in(self, more: Sums, classes: Sequence[int | None], sign: int) -> None:
        from lwmfw_plugins.readouts._sums import Sums

        self.sums = self.sums or Sums.none(more.width, apart=self.apart)
        self.sums.add(more, classes, sign)
        self.solve(self.sums)

    def hidden(self, features: Tensor) -> Tensor:
        """What sums are taken of, (N, M), whole numbers, float64, for features (N, D)."""
        from lwmfw_plugins.readouts._sums import rounded

        return rounded(features)

    def unrounded(self, features: Tensor) -> Tensor:
        """The same before it was rounded: what is to be decided need not add up, and a last bit makes no step of it."""
        from lwmfw_plugins.readouts._sums import scaled

        return scaled(features)

    def scores(self, features: Tensor) -> Tensor:
        """What `decide` finds, (B, seen); minus infinity for a class of which no image is known."""
        import torch

        assert self.sums is not None, "asked after training"  # noqa: S101
        absent = self.sums.counts == 0
        return self.decide(self.unrounded(features)).masked_fill(absent, -torch.inf).to(features)

    @abstractmethod
    def solve(self, sums: Sums) -> None:
        """Make of the sums what `decide` needs."""

    @abstractmethod
    def decide(self, h: Tensor) -> Tensor:
        """Scores (B, seen), float64, for what `unrounded` made of features."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, and what counts as the read-out's bytes."""
        drift = {} if self.drift is None else {"drift": self.drift}
        return self.sums.state() | drift if self.sums else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        from lwmfw_plugins.readouts._sums import Sums

        self.sums, self.drift = (Sums.of(state) if state else None), state.get("drift")
        if self.sums:
            self.solve(self.sums)


def new_features(run: Run, step: Step, data: ImageSet) -> Tensor:
    """The features of a step's images that are no exemplars, which come first, (N, D)."""
    held = int((data.labels < step.new_classes.start).sum()) if run.memory else 0
    return run.features(data)[held:]
