"""dynamic: a memory that is larger by a share of the images of a later step (RMM, Liu et al., NeurIPS 2021).

M_t = M + alpha_t * increment * images a class, after every step, the first and the last included: the formula by which
RMM plans, with a given list of shares in the place of its learned policy. RMM gives up as many new images in exchange,
so that a step is trained on no more than before; the thesis that took the formula up (section 3.2.3) only extends the
memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from lwmfw import Component, Field, Options, Rate, hookimpl

if TYPE_CHECKING:
    from torch import Generator

    from lwmfw import Budget, ImageSet, Run, Step

Share = Annotated[float, Field(ge=0, lt=1)]


class DynamicOptions(Options):
    """Options of dynamic."""

    alpha: list[Share] = Field(
        [0.3],
        min_length=1,
        description="share of a step's new images by which the memory grows after step 1, 2, ...; the last value holds "
        "for later steps",
    )
    give_up: bool = Field(
        False,
        description="leave out as many new images as exemplars are added, so that a step has as many images as before",
    )


class Dynamic:
    """An even share of the budget and of part of the next step's images, so that the memory grows.

    After the last step, which none follows, its own images take the place of the next one's.
    """

    grows = True
    spares_first_step = True

    def __init__(self, options: DynamicOptions) -> None:
        self.options = options

    def share(self, step: int) -> float:
        """alpha of the exemplars that a step, counted from 1, is trained with; step 1 has none."""
        alpha = self.options.alpha
        return alpha[min(step - 2, len(alpha) - 1)]

    @hookimpl
    def allocate_memory(self, run: Run, step: Step, budget: Budget, classes: range, cost: float) -> dict[int, int]:
        """The exemplars with which the next step is trained, and as many classes are told apart by after the last."""
        total = budget.total(len(classes), cost)
        if total is None:
            return dict.fromkeys(classes, sys.maxsize)
        later = run.steps[1:]
        coming = later[step.index - 1 :][:1] or later[-1:]
        images = sum(len(run.data.train.of_classes(s.new_classes)) for s in coming)
        extra = round(self.share(step.index + 1) * images)
        return dict.fromkeys(classes, (total + extra) // len(classes))

    @hookimpl
    def choose_data(self, step: Step, data: ImageSet, rng: Generator) -> ImageSet | None:
        """With give_up: the exemplars, and of every new class the share of images that is left."""
        import torch

        if not self.options.give_up or step.index == 1:
            return None
        labels = data.labels.cpu()
        kept = labels < step.new_classes.start
        for label in step.new_classes:
            members = (labels == label).nonzero().flatten()
            count = round((1 - self.share(step.index)) * len(members))
            kept[members[torch.randperm(len(members), generator=rng)[:count]]] = True
        return data.select(kept.nonzero().flatten().to(data.labels.device))


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Rate("dynamic", Dynamic, DynamicOptions)
