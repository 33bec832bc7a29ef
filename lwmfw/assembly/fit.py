"""What of a recipe cannot be together, found before data is read."""

from __future__ import annotations

from collections.abc import Sequence

from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.scenario import labels_of, stated_order, steps_of, used_classes
from lwmfw.recipe.tables import Scenario
from lwmfw.recipe.text import placed


def unfit_steps(assembly: Assembly) -> list[str]:
    """The scenario held against what the data set tells without being read, and the phases of its steps."""
    recipe, data = assembly.resolved.recipe, assembly.only("data")
    scenario = recipe.scenario
    count, names, orders = (data.trait(name) for name in ("class_count", "class_names", "orders"))
    try:
        order = stated_order(scenario, orders)
        if order is not None and names is not None:
            labels_of(order, names)
        classes = _stated_classes(scenario, order) if count is None else used_classes(scenario, count, orders)
        for step in steps_of(scenario, classes):
            assembly.phases(step)
            if recipe.origin is None:
                assembly.check_terms(step)
    except UserError as error:
        return [placed(error, assembly.resolved.source)]
    return []


def _stated_classes(scenario: Scenario, order: Sequence[int | str] | None) -> int:
    """How many classes a scenario states; where it leaves that to the data, as many as its first two steps have."""
    if scenario.classes or order is not None:
        return scenario.classes or len(order or ())
    increment = scenario.increment
    return scenario.first + (sum(increment) if isinstance(increment, list) else increment)


def unfit_objective(assembly: Assembly) -> list[str]:
    """With exemplars a batch has images of old classes, and few losses over the new ones know an image of none."""
    objective, source = assembly.only("objective"), assembly.resolved.source
    if objective.trait("none_of_these"):
        return []
    if assembly.resolved.recipe.memory and getattr(objective.chosen.options, "over", "") == "new":
        return [
            source.behind_place(
                (*objective.chosen.keys, "over"),
                'objective.over: "new" has no place for the exemplars of [memory]; set over = "seen"',
            )
        ]
    return []


def unfit_memory(assembly: Assembly) -> list[str]:
    """A budget that is no exemplar a class, or one that is a promise."""
    recipe, source = assembly.resolved.recipe, assembly.resolved.source
    if recipe.memory is None:
        return []
    rate, budget = assembly.only("rate"), parse_budget(recipe.memory.budget)
    count = assembly.only("data").trait("class_count")
    classes = count and (recipe.scenario.classes or count)
    if budget.kind == "exemplars" and classes and budget.amount < classes:
        return [
            source.behind_place(
                ("memory", "budget"),
                f"memory.budget: '{recipe.memory.budget}' is less than an exemplar for each of {classes} classes; "
                "raise it",
            )
        ]
    if budget.kind == "bytes" and rate.trait("grows"):
        return [
            source.behind_place(
                ("memory", "rate"),
                f"memory.rate: {rate.name} keeps more than the budget says, and a budget in bytes is never exceeded; "
                "state it in exemplars",
            )
        ]
    return []


def unfit_origin(assembly: Assembly) -> list[str]:
    """More images of known classes where they would have to be trained on or be exemplars: they are not told apart."""
    recipe, source = assembly.resolved.recipe, assembly.resolved.source
    if recipe.origin is None or not recipe.origin.more:
        return []
    where = source.behind_place(("origin", "more"), "origin.more: images of known classes")
    if recipe.memory is not None:
        return [f"{where} have no place beside the exemplars of [memory]; leave one of them out"]
    if recipe.training.settings(2).epochs:
        return [f"{where} are taken in without training; set training.epochs = 0, or leave them out"]
    return []
