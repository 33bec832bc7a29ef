"""From a resolved recipe to live components: built, checked against each other, and attached to the hooks.

Everything a person can get wrong in a plug-in is found here, before training, and said in one line that names the
provider and what is offered.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import pluggy
from pydantic import ValidationError

from lwmfw import hookspecs
from lwmfw.assembly.calls import Adapter, Attached, Position, Randomness
from lwmfw.assembly.contract import check_hooks, read_traits, unmet_needs
from lwmfw.assembly.fit import unfit_memory, unfit_objective, unfit_origin, unfit_steps
from lwmfw.assembly.parts import Assembly
from lwmfw.components import Component, DataChoice, Options
from lwmfw.errors import FOREIGN, UserError, describe, one_line
from lwmfw.recipe.load import Chosen, Resolved, override
from lwmfw.recipe.options import read_options
from lwmfw.recipe.places import without_weights


def assemble(resolved: Resolved) -> Assembly:
    """Build the components of a recipe and attach them.

    Raises:
        UserError: with the errors of all components, one per line.
        RunFailed: a component's plan of phases is none, or fails.
    """
    manager = pluggy.PluginManager("lwmfw")
    manager.add_hookspecs(hookspecs)
    position = Position()
    parts = _attached(resolved, position)
    refiners = [name for name, part in parts.items() if part.record.kind == "refiner"]
    # pluggy calls the implementation registered last first, but the wrapper registered first is the innermost
    for name, part in reversed(parts.items()):
        manager.register(Adapter(part, part.hooks - {"select_memory"} if name in refiners else part.hooks), name)
    wrappers = [Adapter(parts[name], ["select_memory"]) for name in refiners]
    for wrapper in wrappers:
        manager.register(wrapper)
    manager.check_pending()
    unrefined = manager.subset_hook_caller("select_memory", wrappers)
    later = [manager.get_plugin(name) for name, part in parts.items() if not part.trait("acts_first")]
    first = manager.subset_hook_caller("compute_penalty", later)
    randomness = Randomness(resolved.recipe.seed, position)
    assembly = Assembly(resolved, parts, manager.hook, unrefined, first, position, randomness)
    errors = unmet_needs(assembly) + unfit_steps(assembly) + unfit_objective(assembly)
    errors += unfit_memory(assembly) + unfit_origin(assembly)
    if errors:
        raise UserError("\n".join(errors))
    return assembly


def _attached(resolved: Resolved, position: Position) -> dict[str, Attached]:
    """Every component of a recipe, built; in hook order."""
    parts: dict[str, Attached] = {}
    errors: list[str] = []
    components = [(chosen.component.kind, chosen.component.name) for chosen in resolved.chosen]
    for chosen, component in zip(resolved.chosen, components, strict=True):
        name = _free_name(chosen, parts)
        prefix = f"{name}." if components.count(component) > 1 else ""
        try:
            built = build(chosen.component, chosen.options)
            parts[name] = Attached(built.instance, name, chosen, built.traits, built.hooks, position, prefix)
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))
    return parts


def assemble_filled(resolved: Resolved) -> Assembly:
    """The components of a recipe for a model whose every weight comes from elsewhere: no initial ones are read."""
    left_out = without_weights(resolved)
    return replace(assemble(override(resolved, left_out) if left_out else resolved), resolved=resolved)


def _free_name(chosen: Chosen, taken: Collection[str]) -> str:
    """The recipe's name of a component; with its kind where another kind has a component of that name."""
    return f"{chosen.component.kind}.{chosen.name}" if chosen.name in taken else chosen.name


def other_data(choice: DataChoice, assembly: Assembly) -> Attached:
    """A data set that an option of a component names, as [data] would be attached.

    Raises:
        UserError: it cannot be built.
    """
    component = assembly.resolved.catalogue.find("data", choice.use)
    try:
        options = read_options(component, choice.rest())
    except ValidationError as error:
        raise UserError(f"{choice.use}: {one_line(error)}; name a data set as [data] does") from error
    chosen = Chosen(component.name, component, options, ())
    built = build(component, chosen.options)
    return Attached(built.instance, chosen.name, chosen, built.traits, built.hooks, assembly.position)


class Built(NamedTuple):
    """A component that has what its kind requires: the instance, what it says of itself, the names of its hooks."""

    instance: Any
    traits: dict[str, Any]
    hooks: frozenset[str]


def build(component: Component, options: Options) -> Built:
    """An instance that has what its kind requires and whose hooks are well formed.

    Raises:
        UserError: it has not, or they are not.
    """
    try:
        instance = component.factory(options)
    except UserError as error:
        raise UserError(f"{component.provider}: {component.name}: {error}") from error
    except FOREIGN as error:
        raise UserError(
            f"{component.provider}: {component.name} cannot be built: {describe(error)}; "
            "its constructor takes the options and nothing else"
        ) from error
    if inspect.isclass(instance):
        raise UserError(f"{component.provider}: {component.name}: the factory returned a class; return an instance")
    who = f"{component.provider}: {type(instance).__name__}"
    traits = read_traits(instance, who, component.kind)
    hooks = check_hooks(instance, str(component.provider), component.kind, traits["needs"])
    for method in component.required_methods:
        if not callable(inspect.getattr_static(instance, method, None)):
            raise UserError(f"{who}: {component.article()} needs the method {method}; define it")
    for hook in component.required_hooks:
        if hook not in hooks:
            raise UserError(f"{who}: {component.article()} needs the hook {hook}; define it with @hookimpl")
    if not (component.required_methods or hooks):
        raise UserError(f"{who}: {component.article()} needs a hook; define one with @hookimpl")
    return Built(instance, traits, frozenset(hooks))
