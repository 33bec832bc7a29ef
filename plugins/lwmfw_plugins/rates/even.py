"""even: every class seen so far has the same share of the memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Rate, hookimpl

if TYPE_CHECKING:
    from lwmfw import Budget


class Even:
    """An even share of the budget for every class, rounded down."""

    def __init__(self, options: Options) -> None:
        pass

    @hookimpl
    def allocate_memory(self, budget: Budget, classes: range, cost: float) -> dict[int, int]:
        """The same number for every class."""
        total = budget.total(len(classes), cost)
        # one at least: exemplars that turn out larger than planned must not empty a memory of bytes
        return dict.fromkeys(classes, sys.maxsize if total is None else max(1, total // len(classes)))


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Rate("even", Even)
