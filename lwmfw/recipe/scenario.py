"""Which classes come when: the class order and the steps that share it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from lwmfw.errors import UserError, did_you_mean, shown
from lwmfw.recipe.tables import Scenario

DRAWN_LATER = ("seed", "given")
"""Orders for which the number of classes has to be known: drawn from the seed, and as the data set lists them."""

Orders = Mapping[str, Sequence[int]]
"""The class orders that a data set offers, by name."""


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


def stated_order(scenario: Scenario, orders: Orders) -> Sequence[int | str] | None:
    """The classes in the order that a scenario states, by label or by name; None: one of DRAWN_LATER.

    Raises:
        UserError: the data set offers no order of that name.
    """
    order = scenario.order
    if isinstance(order, list):
        return order
    if order in DRAWN_LATER:
        return None
    if order not in orders:
        known = [*DRAWN_LATER, *map(shown, orders)]
        hint = did_you_mean(order, known) or "; choose one, or write a list"
        raise _refused("order", f"no order named '{shown(order)}'{hint} (known: {', '.join(known)})")
    return orders[order]


def labels_of(classes: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """The labels of classes that are stated by label or by name.

    Args:
        classes: labels or names.
        names: of all classes of the data set, by label.

    Raises:
        UserError: no class has such a name, or two have it.
    """
    return [_label(name, names) if isinstance(name, str) else name for name in classes]


def _label(name: str, names: Sequence[str]) -> int:
    labels = [label for label, known in enumerate(names) if known == name]
    if len(labels) == 1:
        return labels[0]
    if labels:
        numbers = " and ".join(map(str, labels))
        raise _refused("order", f"'{shown(name)}' is the name of classes {numbers}; list classes by number")
    known = [shown(text) for text in names]
    hint = did_you_mean(name, known) or f"; choose of {shown(', '.join(known), 200)}"
    raise _refused("order", f"no class named '{shown(name)}'{hint}")


def used_classes(scenario: Scenario, classes: int, orders: Orders) -> int:
    """How many of a data set's classes a scenario uses.

    Raises:
        UserError: as `stated_order`, or a class stands twice or is not there, or more are wanted than there are.
    """
    order = stated_order(scenario, orders)
    if order is not None:
        wrong = [label for label in order if isinstance(label, int) and not 0 <= label < classes]
        if wrong or len(set(order)) < len(order):
            fault = f"{wrong[0]} is no class" if wrong else "a class stands twice"
            each = "class" if any(isinstance(name, str) for name in order) else f"of 0..{classes - 1}"
            raise _refused("order", f"{fault}; list each {each} at most once")
        classes = len(order)
    if scenario.classes > classes:
        raise _refused("classes", f"{scenario.classes} wanted, but there are {classes}; ask for fewer")
    return scenario.classes or classes


def steps_of(scenario: Scenario, classes: int) -> list[Step]:
    """The steps that share out `classes` classes.

    Raises:
        UserError: the classes cannot be shared out as stated.
    """
    first = scenario.first or classes
    stops = [*accumulate([first, *_later_sizes(first, scenario.increment, classes)])]
    starts = [0, *stops[:-1]]
    return [
        Step(index, range(start, stop), range(stop), len(starts))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True), 1)
    ]


def _later_sizes(first: int, increment: int | list[int], classes: int) -> list[int]:
    """How many classes come in each step after the first."""
    rest = classes - first
    if rest < 0:
        raise _refused("first", f"{first} classes wanted, but there are {classes}; ask for fewer")
    if isinstance(increment, list):
        listed = sum(increment)
        if listed != rest:
            fault = f"{abs(listed - rest)} too {'many' if listed > rest else 'few'}"
            raise _refused(
                "increment",
                f"the list has {listed} classes, {fault}: {rest} come after the first {first}; "
                "change the list, or scenario.classes",
            )
        return increment
    if rest and not increment:
        raise _refused(
            "increment",
            f"0 leaves no step for the {rest} classes after the first {first}; say how many come "
            "at a time, or use fewer classes",
        )
    return [min(increment, classes - start) for start in range(first, classes, increment or 1)]


def _refused(key: str, fault: str) -> UserError:
    return UserError(f"scenario.{key}: {fault}", keys=("scenario", key))
