"""The components of a run, as the loop and the engine reach them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy

from lwmfw.assembly.calls import Position, guarded, place_in
from lwmfw.errors import RunFailed
from lwmfw.recipe.catalogue import describe
from lwmfw.recipe.load import Chosen, Resolved


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
        name = self.name_of(kind)
        provider = str(self.chosen[name].component.provider)
        return guarded(self.components[name], name, provider, self.position, method)

    def blame(self, error: Exception) -> RunFailed | None:
        """The failure to report for an exception that came out of a component's own modules, such as a network."""
        for name, instance in self.components.items():
            provider = str(self.chosen[name].component.provider)
            place = place_in(error, provider, instance)
            if place and not provider.startswith("lwmfw "):
                return RunFailed(f"{place}: {name} raised {describe(error)}; the run stopped {self.position}")
        return None
