"""dynamic: a memory that grows by a share of the images of each coming step (RMM, Liu et al., NeurIPS 2021).

M_t = M + alpha_t * (images of the step's new classes): the formula by which RMM plans, with a given list of shares in
the place of its learned policy. RMM gives up as many new images in exchange, so that a step is trained on no more than
before; the thesis that took the formula up only extends the memory.
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
        description="share of the new images of step 2, 3, ... that the memory grows by; the last one holds on",
    )
    give_up: bool = Field(
        False, description="leave out as many new images as exemplars are added: the step's images keep their number"
    )


class Dynamic:
    """An even share of the budget and of a part of the coming step's images; grows the memory."""

    grows = True
    spares_first_step = True

    def __init__(self, options: DynamicOptions) -> None:
        self.options = options

    def share(self, step: int) -> float:
        """alpha of a step from the second on; the first one has no exemplars."""
        alpha = self.options.alpha
        return alpha[min(step - 2, len(alpha) - 1)]

    @hookimpl
    def allocate_memory(self, run: Run, step: Step, budget: Budget, classes: range, cost: float) -> dict[int, int]:
        """The exemplars with which the next step is trained."""
        total = budget.total(len(classes), cost)
        if total is None:
            return dict.fromkeys(classes, sys.maxsize)
        coming = run.steps[step.index : step.index + 1]
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
