"""rmm: exemplars in the place of new images, as a policy says (RMM, Liu et al., NeurIPS 2021).

Two actions for each step t from the second one on. Level 1: the share m_t of the step's n_t new images is given up for
exemplars,

    exemplars  M_t = M + m_t n_t        new images  (1 - m_t) n_t

so that the step is trained on M + n_t images at most, as it would be without. M is the recipe's budget: here it bounds
exemplars and a step's new images together, and the exemplars alone exceed it, which memory_bytes in results.json shows.
Level 2: a class whose loss is above the median has (1 - c_t) times an even quota, any other (1 + c_t).

Loss and median are as PyCIL codes them: the loss is the mean cross-entropy of a class's images. Choices of ours: what
is given up is gone, so that a new class has (1 - m_t) of its images for the memory, where PyCIL herds from all of them;
what a class has not images enough for goes to the other classes; no more is given up than the memory holds above M,
which is nothing where no step was planned behind the last one. All classes are weighed, where PyCIL weighs a step's new
ones alone; one number m_t both adds exemplars and takes new images, where PyCIL reads the second from the next place of
its list; what is given up is drawn without repetition, where PyCIL draws what stays with it; rounding keeps the total,
and one image and one exemplar of each class. Where nothing comes any more, the budget is shared out evenly. README.md
says where policies come from.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import model_validator

from lwmfw import Component, Field, Options, Rate, hookimpl
from lwmfw_plugins.rates.rmm._policy import (
    POLICIES,
    Policy,
    action,
    class_losses,
    class_weights,
    given_up,
    left_after,
    shared_out,
)

if TYPE_CHECKING:
    from torch import Generator

    from lwmfw import Budget, ImageSet, Model, Run, Step

Share = Annotated[float, Field(ge=0, lt=1)]


class RmmOptions(Options):
    """Options of rmm."""

    policy: Literal["icarl", "foster", "listed"] = Field(
        "icarl",
        description="icarl, foster: PyCIL's lists for CIFAR-100, 50 + 5 x 10, with that method; listed: the two below",
    )
    give_up: list[Share] = Field(
        [],
        max_length=100_000,
        description="m: share of the new images of step 2, 3, ... given up for exemplars; the last value "
        "holds for later steps",
    )
    favour: list[Share] = Field(
        [],
        max_length=100_000,
        description="c: share of an even quota that moves from classes with a high loss to classes with a low one, "
        "among exemplars for step 2, 3, ...; the last value holds for later steps; empty: none moves",
    )

    @model_validator(mode="after")
    def _lists_are_listed(self) -> Self:
        if self.policy == "listed" and not self.give_up:
            raise ValueError('input should have give_up beside policy = "listed"; list the shares of step 2, 3, ...')
        if self.policy != "listed" and (self.give_up or self.favour):
            raise ValueError(f'input should have no lists beside policy = "{self.policy}"; set policy = "listed"')
        return self


class Known(NamedTuple):
    """What is known of the classes when exemplars are selected, and not when they are planned.

    Attributes:
        step: the step's number.
        weights: the share of each class.
        most: how many images there are of each.
    """

    step: int
    weights: list[float]
    most: list[int]


class Rmm:
    """Trade new images for exemplars, more for classes with a low loss, at the same number of images a step (RMM)."""

    grows = True
    spares_first_step = True

    def __init__(self, options: RmmOptions) -> None:
        listed = Policy(options.give_up, options.favour or [0.0])
        self.policy = POLICIES.get(options.policy, listed)
        self.known: Known | None = None

    @hookimpl
    def before_memory(self, run: Run, step: Step, model: Model, candidates: ImageSet) -> None:
        """How many images there are of each class, and its loss, by which exemplars for the coming step are weighed."""
        from lwmfw import evaluating

        most = candidates.labels.bincount(minlength=len(step.seen_classes)).tolist()
        weights, favour = [1.0] * len(most), action(self.policy.favour, step.index + 1)
        if favour and step.index < len(run.steps):
            features = run.features(candidates)
            with evaluating(model):
                weights = class_weights(class_losses(model.classifier(features), candidates.labels), favour)
        self.known = Known(step.index, weights, most)

    @hookimpl
    def allocate_memory(self, run: Run, step: Step, budget: Budget, classes: range, cost: float) -> dict[int, int]:
        """The exemplars for the coming step: M and what it gives up, evenly until the classes' images are known."""
        total = budget.total(len(classes), cost)
        if total is None:
            return dict.fromkeys(classes, sys.maxsize)
        share = action(self.policy.give_up, step.index + 1)
        for coming in run.steps[step.index : step.index + 1]:
            counts = (len(run.data.train.of_classes(range(label, label + 1))) for label in coming.new_classes)
            total += sum(given_up(count, share) for count in counts)
        weights, most = [1.0] * len(classes), [total] * len(classes)
        if self.known and self.known.step == step.index:
            _, weights, most = self.known
        return dict(zip(classes, shared_out(total, weights, most), strict=True))

    @hookimpl
    def choose_data(self, run: Run, step: Step, data: ImageSet, rng: Generator) -> ImageSet | None:
        """The exemplars, and of every new class the images that are not given up."""
        share, above = action(self.policy.give_up, step.index), above_budget(run, step)
        if not share or not above:
            return None
        labels = data.labels.cpu()
        there = labels.bincount(minlength=len(step.seen_classes)).tolist()
        most = [given_up(there[label], share) for label in step.new_classes]
        numbers = shared_out(above, [1.0] * len(most), most)
        left = left_after(labels, dict(zip(step.new_classes, numbers, strict=True)), rng)
        return data.select(left.to(data.labels.device))

    @hookimpl
    def after_step(self) -> None:
        """Forget what was known: what is planned next is planned as in a run that is resumed here."""
        self.known = None


def above_budget(run: Run, step: Step) -> int:
    """How many more exemplars the memory holds at a step's beginning than M, the budget of the classes they are of."""
    if run.memory is None:
        return 0
    budget = run.memory.budget.total(len(step.old_classes), cost=1.0)  # never one in bytes: that is refused
    return 0 if budget is None else max(0, len(run.memory.exemplars) - budget)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Rate("rmm", Rmm, RmmOptions)
