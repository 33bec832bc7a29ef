"""cosine: the angle between features and a direction per class (UCIR, Hou et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Classifier, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class CosineOptions(Options):
    """Options of the cosine classifier."""

    scale: float = Field(1.0, gt=0, le=1000, description="initial value of the learned factor eta")


class Cosine:
    """A learned factor times the cosine of features and a direction per class."""

    offers = frozenset({"similarities"})

    def __init__(self, options: CosineOptions) -> None:
        self.options = options

    def build(self, features: int) -> nn.Module:
        """A head without classes for so many features."""
        from lwmfw_plugins.classifiers.heads import CosineHead

        return CosineHead(features, self.options.scale)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Classifier("cosine", Cosine, CosineOptions)
