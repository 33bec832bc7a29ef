"""From a resolved recipe to live components: built, checked against each other, and attached to the hooks.

Everything a person can get wrong in a plug-in is found here, before training, and said in one line that names the
provider and what is offered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from lwmfw import hookspecs
from lwmfw.budget import parse_budget
from lwmfw.errors import RunFailed, UserError, did_you_mean, shown
from lwmfw.guard import Adapter, guarded, place_in
from lwmfw.plugins import describe
from lwmfw.position import Position
from lwmfw.recipe import Chosen, Resolved
from lwmfw.scenario import Orders, labels_of, stated_order, steps_of, used_classes
from lwmfw.source import Source

SPECS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if getattr(function, "lwmfw_spec", None) is not None
}
"""Hook name -> its argument names, in the order of a run."""

RUN_HOOKS = tuple(name for name in SPECS if name != "register_components")

OFFERS = {
    "backbone": frozenset({"features", "maps", "raw_maps", "pooled"}),
    "classifier": frozenset({"similarities"}),
}
"""Kind -> what its component can offer; a component can need these, "old", "old_graph" and "memory"."""

NEEDS = frozenset({"old", "old_graph", "memory"}).union(*OFFERS.values())


@dataclass
class Assembly:
    """The components of one run.

    Attributes:
        resolved: the recipe they were built from.
        components: name within the recipe -> instance, in hook order.
        chosen: name within the recipe -> the choice it was built from.
        hook: pluggy's relay; `hook.before_step(...)` calls every implementation in recipe order.
        select_unrefined: the hook select_memory without the refiners.
        position: shared with the loop, which keeps it up to date.
        needs_old: whether the old model has to run.
        needs_old_graph: whether its outputs must be differentiable with respect to its maps.
    """

    resolved: Resolved
    components: dict[str, Any]
    chosen: dict[str, Chosen]
    hook: pluggy.HookRelay
    select_unrefined: pluggy.HookCaller
    position: Position = field(default_factory=Position)
    needs_old: bool = False
    needs_old_graph: bool = False

    def name_of(self, kind: str) -> str:
        """The name of the component of a kind of which a recipe has exactly one."""
        return next(name for name, c in self.chosen.items() if c.component.kind == kind)

    def provider_of(self, *kinds: str) -> str:
        """Provider and name of the components of some kinds, for messages."""
        of_kinds = [(name, c.component) for name, c in self.chosen.items() if c.component.kind in kinds]
        return " and ".join(f"{component.provider}: {name}" for name, component in of_kinds)

    def method(self, kind: str, method: str) -> Callable[..., Any]:
        """A method of the only component of a kind; an error in it names its provider, as in hooks."""
        return guarded(self, self.name_of(kind), method)

    @property
    def orders(self) -> Orders:
        """The class orders that the data set offers, by name.

        Raises:
            UserError: what it states is no such table.
        """
        name = self.name_of("data")
        try:
            orders = getattr(self.components[name], "orders", {})
            fits = isinstance(orders, Mapping) and all(_is_order(*item) for item in orders.items())
            fault = "" if fits else f"orders is {shown(repr(orders), 60)}"
        except Exception as error:
            fault = f"orders raised {describe(error)}"
        if fault:
            provider = self.provider_of("data")
            raise UserError(f"{provider}: {fault}; a data set states its class orders as name -> list of class numbers")
        return orders

    def blame(self, error: Exception) -> RunFailed | None:
        """The failure to report for an exception that came out of a component's own modules, such as a network."""
        for name, instance in self.components.items():
            provider = str(self.chosen[name].component.provider)
            place = place_in(error, provider, instance)
            if place and not provider.startswith("lwmfw "):
                return RunFailed(f"{place}: {name} raised {describe(error)}; the run stopped {self.position}")
        return None


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
            _unmet_needs(assembly)
            + _unfit_scenario(assembly, resolved)
            + _unfit_objective(assembly)
            + _unfit_memory(assembly)
        )
    if errors:
        raise UserError("\n".join(errors))
    needs = set().union(*(_needs(component) for component in assembly.components.values()))
    assembly.needs_old_graph = "old_graph" in needs
    assembly.needs_old = "old" in needs or assembly.needs_old_graph
    twice = _used_twice(resolved)
    refiners = [name for name, chosen in assembly.chosen.items() if chosen.component.kind == "refiner"]
    # pluggy calls the implementation registered last first, but the wrapper registered first is the innermost
    for name in reversed(assembly.components):
        wraps = ("select_memory",) if name in refiners else ()
        manager.register(_adapter(assembly, name, twice, without=wraps), name)
    wrappers = [Adapter(assembly, name, ["select_memory"]) for name in refiners]
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
        _check_arguments(who, method, SPECS[name], "old" in _needs(instance))
        found[name] = method
    return found


def _check_arguments(who: str, method: Callable[..., Any], spec: tuple[str, ...], gets_old: bool) -> None:
    offered = [argument for argument in spec if argument != "old" or gets_old]
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


def _needs(instance: Any) -> set[str]:
    needs = getattr(instance, "needs", ())
    return {needs} if isinstance(needs, str) else set(needs)


def _unmet_needs(assembly: Assembly) -> list[str]:
    errors = []
    for name, instance in assembly.components.items():
        provider = assembly.chosen[name].component.provider
        faults = (_unmet(assembly, need) for need in sorted(_needs(instance)))
        errors += [f"{provider}: {name} needs {fault}" for fault in faults if fault]
    return errors


def _unmet(assembly: Assembly, need: str) -> str:
    """What is wrong with a need in this recipe; empty if it is met."""
    if need not in NEEDS:
        hint = did_you_mean(need, NEEDS) or f"; choose of {', '.join(sorted(NEEDS))}"
        return f"'{need}', which nothing can offer{hint}"
    if need == "memory" and assembly.resolved.recipe.memory is None:
        return "exemplars, but the recipe keeps none; add [memory]"
    for kind in (kind for kind, possible in OFFERS.items() if need in possible):
        name = assembly.name_of(kind)
        offers = getattr(assembly.components[name], "offers", ())
        if need not in offers:
            listed = ", ".join(sorted(offers)) or "nothing"
            return f"'{need}', but the {kind} {name} offers {listed}; choose another {kind}"
    return ""


def _unfit_scenario(assembly: Assembly, resolved: Resolved) -> list[str]:
    """The scenario held against what the data set tells without being read: class orders, and its classes."""
    scenario, data = resolved.recipe.scenario, assembly.components[assembly.name_of("data")]
    count, names = getattr(data, "class_count", None), getattr(data, "class_names", None)
    try:
        order = stated_order(scenario, assembly.orders)
        if count is not None:
            steps_of(scenario, used_classes(scenario, count, assembly.orders))
        if order is not None and names is not None:
            labels_of(order, names)
    except UserError as error:
        return [placed(error, resolved.source)]
    return []


def placed(error: UserError, source: Source) -> str:
    """What is wrong with a scenario, behind the place where its key was written."""
    key = str(error).partition(":")[0]
    return f"{source.place(tuple(key.split('.')))}: {error}" if key.startswith("scenario.") else str(error)


def _is_order(name: object, order: object) -> bool:
    return isinstance(name, str) and isinstance(order, Sequence) and all(isinstance(label, int) for label in order)


def _unfit_objective(assembly: Assembly) -> list[str]:
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


def _unfit_memory(assembly: Assembly) -> list[str]:
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


def _used_twice(resolved: Resolved) -> set[tuple[str, str]]:
    keys = [(c.component.kind, c.component.name) for c in resolved.chosen]
    return {key for key in keys if keys.count(key) > 1}


def _adapter(assembly: Assembly, name: str, twice: set[tuple[str, str]], without: Collection[str]) -> Adapter:
    component = assembly.chosen[name].component
    hooks = check_hooks(assembly.components[name], str(component.provider), component.kind).keys() - set(without)
    return Adapter(assembly, name, hooks, f"{name}." if (component.kind, component.name) in twice else "")
