"""What of a recipe cannot be together, found before data is read."""

from __future__ import annotations

from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.scenario import steps_of, used_classes


def unfit_scenario(assembly: Assembly, resolved: Resolved) -> list[str]:
    """The scenario held against the number of classes, where the data set tells it without being read."""
    count = getattr(assembly.components[assembly.name_of("data")], "class_count", None)
    if count is None:
        return []
    try:
        steps_of(resolved.recipe.scenario, used_classes(resolved.recipe.scenario, count))
    except UserError as error:
        key = str(error).partition(":")[0].split(".")
        return [f"{resolved.source.place(tuple(key))}: {error}"]
    return []


def unfit_objective(assembly: Assembly) -> list[str]:
    """With exemplars a batch has images of old classes, and few losses over the new ones know an image of none."""
    name = assembly.name_of("objective")
    chosen, source = assembly.chosen[name], assembly.resolved.source
    if getattr(assembly.components[name], "none_of_these", False):
        return []
    if assembly.resolved.recipe.memory and getattr(chosen.options, "over", "") == "new":
        return [
            f'{source.place((*chosen.keys, "over"))}: objective.over: "new" has no place for the exemplars of '
            '[memory]; set over = "seen"'
        ]
    return []


def unfit_memory(assembly: Assembly) -> list[str]:
    """What is asked of exemplars where there are none, or of a budget that is a promise."""
    recipe, source = assembly.resolved.recipe, assembly.resolved.source
    if recipe.memory is None:
        if "nme" not in recipe.evaluation.classifiers:
            return []
        place = source.place(("evaluation", "classifiers"))
        return [f'{place}: evaluation.classifiers: "nme" needs exemplars, but the recipe keeps none; add [memory]']
    rate, budget = assembly.name_of("rate"), parse_budget(recipe.memory.budget)
    count = getattr(assembly.components[assembly.name_of("data")], "class_count", None)
    classes = count and (recipe.scenario.classes or count)
    if budget.kind == "exemplars" and classes and budget.amount < classes:
        return [
            f"{source.place(('memory', 'budget'))}: memory.budget: '{recipe.memory.budget}' is less than an exemplar "
            f"for each of {classes} classes; raise it"
        ]
    if budget.kind == "bytes" and getattr(assembly.components[rate], "grows", False):
        return [
            f"{source.place(('memory', 'rate'))}: memory.rate: {rate} keeps more than the budget says, and a budget in "
            "bytes is never exceeded; state it in exemplars"
        ]
    return []
