"""cnn: the classifier that is trained decides, as most of the field's tables have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Readout, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lwmfw import Model


class Cnn:
    """The class of the classifier's largest logit."""

    def __init__(self, options: Options) -> None:
        self.classifier: nn.Module | None = None

    @hookimpl
    def after_training(self, model: Model) -> None:
        """Take the classifier."""
        self.classifier = model.classifier

    def scores(self, features: Tensor) -> Tensor:
        """Its logits, (B, seen)."""
        assert self.classifier is not None, "asked after training"  # noqa: S101
        return self.classifier(features)  # type: ignore[no-any-return]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("cnn", Cnn)
