"""closest: exemplars whose features are nearest to the mean of their class.

PODNet's published code has such a selector too, but normalises along the images instead of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Selector, hookimpl
from lwmfw_plugins.selectors._ranking import select_ranked

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Selection, Step


def nearest_to_mean(features: Tensor, count: int) -> Tensor:
    """The images nearest to the mean, the nearest first; of equal ones the first.

    Args:
        features: (n, D) of one class.
        count: at most n.

    Returns:
        Positions (count,), int64.
    """
    return (features - features.mean(0)).square().sum(1).argsort(stable=True)[:count]


class Closest:
    """The exemplars nearest to the mean of their class, in L2-normalised features."""

    def __init__(self, options: Options) -> None:
        pass

    @hookimpl
    def select_memory(self, run: Run, step: Step, candidates: ImageSet, quota: Mapping[int, int]) -> Selection:
        """New classes by their distance to the mean, old ones cut short."""
        return select_ranked(run, step, candidates, quota, nearest_to_mean)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Selector("closest", Closest)
