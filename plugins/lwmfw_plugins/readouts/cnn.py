"""cnn: the classifier that is trained decides, as most of the field's tables have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Readout, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Run


class Cnn:
    """The class with the classifier's largest logit."""

    probability = "softmax of the classifier's logits, not calibrated"
    spares_first_step = True

    def __init__(self, options: Options) -> None:
        self.run: Run | None = None

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Know the run, whose classifier it is."""
        self.run = run

    def scores(self, features: Tensor) -> Tensor:
        """Its logits, (B, seen)."""
        assert self.run is not None, "asked in a run"  # noqa: S101
        return self.run.model.classifier(features)  # type: ignore[no-any-return]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("cnn", Cnn)
