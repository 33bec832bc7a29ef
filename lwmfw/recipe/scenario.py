"""Which classes come when: the steps that share out the classes."""

from __future__ import annotations

from dataclasses import dataclass

from lwmfw.errors import UserError
from lwmfw.recipe.orders import NAMED_ORDERS
from lwmfw.recipe.tables import Scenario


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


def steps_of(scenario: Scenario, classes: int) -> list[Step]:
    """The steps that share out `classes` classes.

    Raises:
        UserError: the classes cannot be shared out as stated.
    """
    rest = classes - scenario.first
    if rest < 0:
        raise UserError(f"scenario.first: {scenario.first} classes wanted, but there are {classes}; ask for fewer")
    if rest and (scenario.increment == 0 or rest % scenario.increment):
        fitting = [str(n) for n in range(1, min(rest, 1000) + 1) if rest % n == 0]
        raise UserError(
            f"scenario.increment: the {rest} classes after the first {scenario.first} do not make whole steps of "
            f"{scenario.increment}; choose of {', '.join(fitting)}, or use fewer classes"
        )
    starts = [0, *range(scenario.first, classes, scenario.increment or 1)]
    stops = [*starts[1:], classes]
    return [
        Step(index, range(start, stop), range(stop), len(starts))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True), 1)
    ]
