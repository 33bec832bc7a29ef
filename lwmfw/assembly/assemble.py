"""From a resolved recipe to live components: built, checked against each other, and attached to the hooks.

Everything a person can get wrong in a plug-in is found here, before training, and said in one line that names the
provider and what is offered.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import pluggy

from lwmfw import hookspecs
from lwmfw.assembly.calls import Adapter
from lwmfw.assembly.contract import check_hooks, needs_of, unmet_needs
from lwmfw.assembly.fit import unfit_memory, unfit_objective, unfit_scenario
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import describe
from lwmfw.recipe.load import Chosen, Resolved


def assemble(resolved: Resolved) -> Assembly:
    """Build the components of a recipe and attach them.

    Raises:
        UserError: with the errors of all components, one per line.
    """
    manager = pluggy.PluginManager("lwmfw")
    manager.add_hookspecs(hookspecs)
    assembly = Assembly(resolved, {}, {}, manager.hook, manager.hook.select_memory)
    errors: list[str] = []
    for chosen in resolved.chosen:
        name = _free_name(chosen, assembly.chosen)
        try:
            assembly.components[name] = _build(chosen)
            assembly.chosen[name] = chosen
        except UserError as error:
            errors.append(str(error))
    if not errors:
        errors = (
            unmet_needs(assembly)
            + unfit_scenario(assembly, resolved)
            + unfit_objective(assembly)
            + unfit_memory(assembly)
        )
    if errors:
        raise UserError("\n".join(errors))
    needs = set().union(*(needs_of(component) for component in assembly.components.values()))
    assembly.needs_old_graph = "old_graph" in needs
    assembly.needs_old = "old" in needs or assembly.needs_old_graph
    twice = _used_twice(resolved)
    refiners = [name for name, chosen in assembly.chosen.items() if chosen.component.kind == "refiner"]
    # pluggy calls the implementation registered last first, but the wrapper registered first is the innermost
    for name in reversed(assembly.components):
        wraps = ("select_memory",) if name in refiners else ()
        manager.register(_adapter(assembly, name, twice, without=wraps), name)
    wrappers = [_attached(assembly, name, ["select_memory"]) for name in refiners]
    for wrapper in wrappers:
        manager.register(wrapper)
    manager.check_pending()
    assembly.select_unrefined = manager.subset_hook_caller("select_memory", wrappers)
    return assembly


def _free_name(chosen: Chosen, taken: Collection[str]) -> str:
    """The recipe's name of a component; with its kind where another kind has a component of that name."""
    return f"{chosen.component.kind}.{chosen.name}" if chosen.name in taken else chosen.name


def _build(chosen: Chosen) -> Any:
    """An instance that has what its kind requires and whose hooks are well formed."""
    component = chosen.component
    try:
        instance = component.factory(chosen.options)
    except UserError as error:
        raise UserError(f"{component.provider}: {component.name}: {error}") from error
    except Exception as error:
        raise UserError(
            f"{component.provider}: {component.name} cannot be built: {describe(error)}; "
            "its constructor takes the options and nothing else"
        ) from error
    if inspect.isclass(instance):
        raise UserError(f"{component.provider}: {component.name}: the factory returned a class; return an instance")
    hooks = check_hooks(instance, str(component.provider), component.kind)
    who = f"{component.provider}: {type(instance).__name__}"
    for method in component.required_methods:
        if not callable(getattr(instance, method, None)):
            raise UserError(f"{who}: a {component.kind} needs the method {method}; define it")
    for hook in component.required_hooks:
        if hook not in hooks:
            raise UserError(f"{who}: a {component.kind} needs the hook {hook}; define it with @hookimpl")
    if component.kind == "observer" and not hooks:
        raise UserError(f"{who}: implements no hook; it would never be called")
    return instance


def _used_twice(resolved: Resolved) -> set[tuple[str, str]]:
    keys = [(c.component.kind, c.component.name) for c in resolved.chosen]
    return {key for key in keys if keys.count(key) > 1}


def _adapter(assembly: Assembly, name: str, twice: set[tuple[str, str]], without: Collection[str]) -> Adapter:
    component = assembly.chosen[name].component
    hooks = check_hooks(assembly.components[name], str(component.provider), component.kind).keys() - set(without)
    return _attached(assembly, name, hooks, f"{name}." if (component.kind, component.name) in twice else "")


def _attached(assembly: Assembly, name: str, hooks: Collection[str], prefix: str = "") -> Adapter:
    provider = str(assembly.chosen[name].component.provider)
    return Adapter(assembly.components[name], name, provider, assembly.position, hooks, prefix)
