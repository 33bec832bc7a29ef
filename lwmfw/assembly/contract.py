"""What an instance must look like: well-formed hooks, known traits, and needs that something in the recipe offers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from typing import Any

from lwmfw.assembly.calls import marker
from lwmfw.assembly.parts import Assembly
from lwmfw.components import TRAITS, Trait, as_trait
from lwmfw.errors import FOREIGN, UserError, describe, did_you_mean, shown
from lwmfw.hookspecs import RUN_HOOKS, SPECS, own

OFFERS = {
    "backbone": frozenset({"features", "maps", "raw_maps", "pooled"}),
    "classifier": frozenset({"similarities", "rows", "resize", "heads"}),
}
"""Kind -> what its component can offer; a component can need these, "old", "old_graph" and "memory".

A backbone offers "features" whose number is the same in every step: they can be compared and summed up.
"""
NEEDS = frozenset({"old", "old_graph", "memory"}).union(*OFFERS.values())


def check_hooks(
    instance: Any, provider: str, kind: str = "", needs: frozenset[str] = frozenset()
) -> dict[str, Callable[..., Any]]:
    """The hook implementations of an instance that has some needs, each checked against its specification.

    Raises:
        UserError: an unknown hook, a hook's name without the marker, an argument that is not offered or has a
            default, a call-order option, or a refiner's select_memory that is no wrapper.
    """
    found = {}
    for name in sorted(getattr(instance, "__dict__", {}).keys() & set(RUN_HOOKS)):
        raise UserError(f"{provider}: {type(instance).__name__} sets {name} on the instance; define it in the class")
    for name in dir(type(instance)):
        options = marker(type(instance), name)
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
            if used != ["wrapper"] or not inspect.isgeneratorfunction(getattr(instance, name)):
                raise UserError(
                    f"{who} of a refiner has to wrap the selector's; mark it @hookimpl(wrapper=True) and begin it with "
                    "`selection = yield`"
                )
        elif used:
            why = "a hook has its method's name" if used[0] == "specname" else "the order is that of the recipe"
            raise UserError(f"{who}: @hookimpl({used[0]}=...) is refused; {why}")
        method = getattr(instance, name)
        _check_arguments(who, method, name, "old" in needs)
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


def read_traits(instance: Any, who: str, kind: str) -> dict[str, Any]:
    """What an instance says of itself, or what its silence means. Read once: a property may answer otherwise later.

    Raises:
        UserError: a trait of another type, one misspelt, two at odds, a state that could not be restored, or an offer
            nobody knows.
    """
    known = {name: each for name, each in TRAITS.items() if not each.kinds or kind in each.kinds}
    try:
        names = {name for name in dir(instance) if not name.startswith("_")}
    except FOREIGN as error:
        raise UserError(f"{who}: its attributes raised {describe(error)}; leave __dir__ as it is") from error
    given = {}
    for name in sorted(known.keys() & names):
        try:
            given[name] = getattr(instance, name)
        except FOREIGN as error:
            raise UserError(f"{who}: {name} raised {describe(error)}; {known[name].meaning}") from error
    for name, value in given.items():
        if not known[name].holds(value):
            wrong = f"{name} = {shown(repr(value), 60)} is no {known[name].type}"
            raise UserError(f"{who}: {wrong}; {known[name].meaning}")
    _check_spelling(instance, who, names, known)
    if ("state" in names) != ("restore" in names):
        lone, other = ("state", "restore") if "state" in names else ("restore", "state")
        raise UserError(f"{who}: has {lone} and no {other}; define both")
    if given.get("pauses") and "state" not in names:
        raise UserError(f"{who}: says pauses and has no state, which a run could go on from; define state and restore")
    if given.get("exact") and "add" not in names:
        raise UserError(f"{who}: is exact and has no add(state, classes, sign); define it")
    traits = {name: as_trait(name, given.get(name, each.default)) for name, each in TRAITS.items()}
    _check_first_step(who, traits)
    for offer in sorted(traits["offers"] - NEEDS):
        hint = did_you_mean(offer, NEEDS) or f"; choose of {', '.join(sorted(NEEDS))}"
        raise UserError(f"{who}: offers '{shown(offer)}', which nobody can need{hint}")
    return traits


def _check_first_step(who: str, traits: Mapping[str, Any]) -> None:
    if traits["acts_first"] and traits["needs"] & {"old", "old_graph"}:
        raise UserError(f"{who}: says acts_first and needs the old model, which the first step has not; leave one out")
    if traits["acts_first"] and traits["spares_first_step"]:
        raise UserError(f"{who}: says acts_first and spares_first_step; leave one out")


def _check_spelling(instance: Any, who: str, names: set[str], known: Mapping[str, Trait]) -> None:
    for name in sorted(names - known.keys()):
        for near in known.keys() - names:
            value = inspect.getattr_static(instance, name, None)
            if _alike(name, near) and callable(value) == known[near].method:
                raise UserError(f"{who}: has '{name}', which nothing reads; did you mean '{near}'?")


def _alike(name: str, trait: str) -> bool:
    """Whether a name is a trait's but for case, underscores and a plural; of a long name, but for a letter or two."""
    one, other = (text.lower().replace("_", "").rstrip("s") for text in (name, trait))
    return one == other or (len(trait) > 10 and SequenceMatcher(None, one, other).ratio() > 0.9)


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
            able = [c.name for c in assembly.resolved.catalogue.of_kind(kind) if need in _offered(c.made_by)]
            which = f", such as {able[0]}" if able else ""
            return f"'{need}', but the {kind} {part.name} offers {listed}; choose another {kind}{which}"
    return ""


def _offered(made_by: Any) -> frozenset[str]:
    """What a class offers whatever its options are."""
    offers = inspect.getattr_static(made_by, "offers", ())
    return frozenset(offers) if isinstance(offers, frozenset | set | tuple | list) else frozenset()
