"""linear: a weight vector and a bias per class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Classifier, Component, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn


class Linear:
    """A weight vector and a bias per class."""

    offers = frozenset({"rows", "resize"})

    def __init__(self, options: Options) -> None:
        pass

    def build(self, features: int) -> nn.Module:
        """A head without classes for so many features."""
        from lwmfw_plugins.classifiers._heads import LinearHead

        return LinearHead(features)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Classifier("linear", Linear)
