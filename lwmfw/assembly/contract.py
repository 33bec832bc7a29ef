"""What an instance must look like: well-formed hooks, known traits, and needs that something in the recipe offers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from lwmfw.assembly.parts import Assembly
from lwmfw.components import TRAITS, trait
from lwmfw.errors import UserError, describe, did_you_mean, shown
from lwmfw.hookspecs import RUN_HOOKS, SPECS, own

OFFERS = {
    "backbone": frozenset({"features", "maps", "raw_maps", "pooled"}),
    "classifier": frozenset({"similarities"}),
}
"""Kind -> what its component can offer; a component can need these, "old", "old_graph" and "memory"."""
NEEDS = frozenset({"old", "old_graph", "memory"}).union(*OFFERS.values())


def check_hooks(instance: Any, provider: str, kind: str = "") -> dict[str, Callable[..., Any]]:
    """The hook implementations of an instance, each checked against its specification.

    Raises:
        UserError: an unknown hook, a hook's name without the marker, an argument that is not offered or has a
            default, a call-order option, or a refiner's select_memory that is no wrapper.
    """
    found = {}
    for name in dir(type(instance)):
        # looked up without being run: a property is no hook
        static = inspect.getattr_static(type(instance), name)
        function = getattr(static, "__func__", static)
        options = getattr(function, "lwmfw_impl", None)
        who = f"{provider}: {type(instance).__name__}.{name}"
        if options is None:
            if name in RUN_HOOKS:
                raise UserError(f"{who} has a hook's name but no @hookimpl; it would never be called")
            continue
        if name not in RUN_HOOKS:
            hint = did_you_mean(name, RUN_HOOKS) or f"; hooks are {', '.join(RUN_HOOKS)}"
            raise UserError(f"{who} is marked @hookimpl, but the loop has no such hook{hint}")
        used = [option for option, value in options.items() if value]
        if kind == "refiner" and name == "select_memory":
            if used != ["wrapper"] or not inspect.isgeneratorfunction(function):
                raise UserError(
                    f"{who} of a refiner has to wrap the selector's; mark it @hookimpl(wrapper=True) and begin it with "
                    "`selection = yield`"
                )
        elif used:
            raise UserError(f"{who}: @hookimpl({used[0]}=...) is refused; the order is that of the recipe")
        method = getattr(instance, name)
        _check_arguments(who, method, name, "old" in trait(instance, "needs"))
        found[name] = method
    return found


def _check_arguments(who: str, method: Callable[..., Any], hook: str, gets_old: bool) -> None:
    spec = SPECS[hook]
    offered = [*(argument for argument in spec if argument != "old" or gets_old)]
    offered += [argument for argument in own(hook) if argument not in offered]
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise UserError(f"{who} takes '{parameter}'; a hook names its arguments: {', '.join(offered)}")
        if parameter.default is not parameter.empty:
            raise UserError(f"{who} gives '{parameter.name}' a default; hook arguments take none")
        if parameter.name == "old" and "old" in spec and not gets_old:
            raise UserError(f"{who} asks for 'old' but does not need it; add \"old\" to needs")
        if parameter.name not in offered:
            hint = did_you_mean(parameter.name, offered)
            raise UserError(
                f"{who} asks for '{parameter.name}', which is not offered{hint or ';'} offered: {', '.join(offered)}"
            )


def check_traits(instance: Any, who: str) -> None:
    """Hold what an instance says of itself against the table of traits.

    Raises:
        UserError: a trait of another type, one misspelt, a state that could not be restored, or an offer nobody knows.
    """
    names = {name for name in dir(instance) if not name.startswith("_")}
    for name in TRAITS.keys() & names:
        try:
            value = getattr(instance, name)
        except Exception as error:
            raise UserError(f"{who}: {name} raised {describe(error)}; {TRAITS[name].meaning}") from error
        if not TRAITS[name].holds(value):
            shape = f"{name} = {shown(repr(value), 60)} is no {TRAITS[name].type}"
            raise UserError(f"{who}: {shape}; {TRAITS[name].meaning}")
    for name in names - TRAITS.keys():
        near = get_close_matches(name.lower(), TRAITS.keys() - names, n=1, cutoff=0.85)
        if near and callable(inspect.getattr_static(instance, name)) == TRAITS[near[0]].method:
            raise UserError(f"{who}: has '{name}', which nothing reads; did you mean '{near[0]}'?")
    if ("state" in names) != ("restore" in names):
        lone, other = ("state", "restore") if "state" in names else ("restore", "state")
        raise UserError(f"{who}: has {lone} and no {other}; define both")
    for offer in sorted(trait(instance, "offers") - NEEDS):
        hint = did_you_mean(offer, NEEDS) or f"; choose of {', '.join(sorted(NEEDS))}"
        raise UserError(f"{who}: offers '{offer}', which nobody can need{hint}")


def unmet_needs(assembly: Assembly) -> list[str]:
    """What components need and nothing in the recipe offers, one line each."""
    errors = []
    for part in assembly.components.values():
        faults = (_unmet(assembly, need) for need in sorted(part.trait("needs")))
        errors += [f"{part.provider}: {part.name} needs {fault}" for fault in faults if fault]
    return errors


def unknown_need(need: str) -> str:
    """What is wrong with a need in any recipe; empty if something can offer it."""
    if need in NEEDS:
        return ""
    hint = did_you_mean(need, NEEDS) or f"; choose of {', '.join(sorted(NEEDS))}"
    return f"'{need}', which nothing can offer{hint}"


def _unmet(assembly: Assembly, need: str) -> str:
    """What is wrong with a need in this recipe; empty if it is met."""
    if need not in NEEDS:
        return unknown_need(need)
    if need == "memory" and assembly.resolved.recipe.memory is None:
        return "exemplars, but the recipe keeps none; add [memory]"
    for kind in (kind for kind, possible in OFFERS.items() if need in possible):
        part = assembly.only(kind)
        offers = part.trait("offers")
        if need not in offers:
            listed = ", ".join(sorted(offers)) or "nothing"
            return f"'{need}', but the {kind} {part.name} offers {listed}; choose another {kind}"
    return ""
