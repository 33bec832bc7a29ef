"""Which classes come when: the class order and the steps that share it out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from lwmfw.errors import UserError
from lwmfw.orders import NAMED_ORDERS
from lwmfw.recipe import Scenario


@dataclass(frozen=True)
class Step:
    """One incremental step. Classes are positions in the class order, not labels of the data set.

    Attributes:
        index: counted from 1.
        new_classes: what this step brings.
        seen_classes: old and new ones together.
        total: number of steps of the run.
    """

    index: int
    new_classes: range
    seen_classes: range
    total: int

    @property
    def old_classes(self) -> range:
        """The classes that the old model knows."""
        return range(self.new_classes.start)


def used_classes(scenario: Scenario, classes: int) -> int:
    """How many of a data set's classes a scenario uses.

    Raises:
        UserError: the order is no permutation of classes, or one of another number of them, or more are wanted than
            there are.
    """
    if isinstance(scenario.order, list):
        wrong = [label for label in scenario.order if not 0 <= label < classes]
        if wrong or len(set(scenario.order)) < len(scenario.order):
            fault = f"{wrong[0]} is no class" if wrong else "a class stands twice"
            raise UserError(f"scenario.order: {fault}; list each of 0..{classes - 1} at most once")
        classes = len(scenario.order)
    elif scenario.order not in ("seed", "seed1993") and classes != len(NAMED_ORDERS[scenario.order]):
        raise UserError(
            f"scenario.order: '{scenario.order}' is an order of {len(NAMED_ORDERS[scenario.order])} classes, but there "
            f'are {classes}; write "seed" or a list'
        )
    if scenario.classes > classes:
        raise UserError(f"scenario.classes: {scenario.classes} wanted, but there are {classes}; ask for fewer")
    return scenario.classes or classes


def class_order(scenario: Scenario, classes: int, seed: int) -> list[int]:
    """The labels of a data set in the order in which they are learned.

    Args:
        scenario: states the order and how many of its classes are used.
        classes: number of classes of the data set.
        seed: decides `order = "seed"`.

    Raises:
        UserError: as `used_classes`.
    """
    import numpy as np
    import torch

    from lwmfw.rng import generator

    used = used_classes(scenario, classes)
    if isinstance(scenario.order, list):
        return scenario.order[:used]
    if scenario.order == "seed1993":
        return [int(label) for label in np.random.RandomState(1993).permutation(classes)][:used]
    if scenario.order != "seed":
        return NAMED_ORDERS[scenario.order][:used]
    return torch.randperm(classes, generator=generator(seed, "order")).tolist()[:used]


def steps_of(scenario: Scenario, classes: int) -> list[Step]:
    """The steps that share out `classes` classes.

    Raises:
        UserError: the classes cannot be shared out as stated.
    """
    stops = [*accumulate([scenario.first, *_later_sizes(scenario, classes)])]
    starts = [0, *stops[:-1]]
    return [
        Step(index, range(start, stop), range(stop), len(starts))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True), 1)
    ]


def _later_sizes(scenario: Scenario, classes: int) -> list[int]:
    """How many classes come in each step after the first."""
    first, increment = scenario.first, scenario.increment
    rest = classes - first
    if rest < 0:
        raise UserError(f"scenario.first: {first} classes wanted, but there are {classes}; ask for fewer")
    if isinstance(increment, list):
        listed = sum(increment)
        if listed != rest:
            fault = f"{abs(listed - rest)} too {'many' if listed > rest else 'few'}"
            raise UserError(
                f"scenario.increment: the list has {listed} classes, {fault}: {rest} come after the first {first}; "
                "change the list, or scenario.classes"
            )
        return increment
    if rest and not increment:
        raise UserError(
            f"scenario.increment: 0 leaves no step for the {rest} classes after the first {first}; say how many come "
            "at a time, or use fewer classes"
        )
    return [min(increment, classes - start) for start in range(first, classes, increment or 1)]
