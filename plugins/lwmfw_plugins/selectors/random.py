"""random: exemplars drawn at random, the baseline that every other selector has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Selector, hookimpl

if TYPE_CHECKING:
    from torch import Generator

    from lwmfw import Images, Selection


class Random:
    """Exemplars drawn at random from each class."""

    def __init__(self, options: Options) -> None:
        pass

    @hookimpl
    def select_memory(self, candidates: Images, quota: Mapping[int, int], rng: Generator) -> Selection:
        """The first of a random order of each class."""
        import torch

        from lwmfw import Selection

        labels, chosen = candidates.labels.cpu(), {}
        for label, count in quota.items():
            members = (labels == label).nonzero().flatten()
            chosen[label] = members[torch.randperm(len(members), generator=rng)[:count]]
        return Selection(chosen)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Selector("random", Random)
