"""The components of a run, as the loop and the engine reach them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from lwmfw.assembly.calls import Attached, Position, Randomness, place_in
from lwmfw.errors import RunFailed, UserError, WrongAnswer, describe, one_line
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.phase import MAIN, Phase
from lwmfw.recipe.scenario import Step


@dataclass(frozen=True)
class Assembly:
    """The components of one run.

    Attributes:
        resolved: the recipe they were built from.
        components: name within the recipe -> component, in hook order.
        hook: pluggy's relay; `hook.before_step(...)` calls every implementation in recipe order.
        select_unrefined: the hook select_memory without the refiners.
        position: shared with the loop, which keeps it up to date.
        rng: gives every component its generator.
    """

    resolved: Resolved
    components: Mapping[str, Attached]
    hook: pluggy.HookRelay
    select_unrefined: pluggy.HookCaller
    position: Position
    rng: Randomness

    def only(self, kind: str) -> Attached:
        """The component of a kind of which a recipe has exactly one."""
        return next(part for part in self.components.values() if part.record.kind == kind)

    def method(self, kind: str, method: str) -> Callable[..., Any]:
        """A method of the only component of a kind."""
        return self.only(kind).method(method)

    def needs(self, need: str) -> bool:
        """Whether a component needs something."""
        return any(need in part.trait("needs") for part in self.components.values())

    @property
    def needs_old_graph(self) -> bool:
        """Whether the old model's outputs must be differentiable with respect to its maps."""
        return self.needs("old_graph")

    @property
    def needs_old(self) -> bool:
        """Whether the old model has to run."""
        return self.needs("old") or self.needs_old_graph

    def phases(self, step: Step) -> list[Phase]:
        """All phases of a step, the main one first.

        Raises:
            UserError: two have one name.
        """
        main = Phase(MAIN, **self.resolved.recipe.training.settings(step.index).model_dump())
        more = self.hook.plan_phases(step=step, main=main, rng=self.rng)
        phases = [main, *itertools.chain.from_iterable(more)]
        names = [phase.name for phase in phases]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(
                f"phases: step {step.index} has two phases named '{twice[0]}'; leave one out", keys=("phases",)
            )
        return phases

    def blame(self, error: BaseException) -> RunFailed | None:
        """The failure to report for an exception that came out of a component's own modules, such as a network."""
        raised = error.__cause__ or error if isinstance(error, WrongAnswer) else error
        if one_line(raised).startswith(_LONE_IMAGE):
            return RunFailed(
                "training.batch_size: a batch of one image, whose maps are of 1x1, leaves BatchNorm nothing to "
                f"compare; the run stopped {self.position}; change training.batch_size"
            )
        network = self._network(error) if isinstance(error, WrongAnswer) else None
        if network is not None and (raised is error or not _ours(network)):
            return _network_failure(network, error, raised)
        for part in self.components.values():
            place = place_in(error, part.provider, part.instance)
            if place and not _ours(part):  # a network of ours that fails below it was given what it does not take
                return part.failure(f"{place}: {part.name} raised {describe(raised)}")
        if network is not None:
            return _network_failure(network, error, raised)
        return RunFailed(f"{error}; the run stopped {self.position}") if isinstance(error, WrongAnswer) else None

    def _network(self, error: WrongAnswer) -> Attached | None:
        """The component that an answer of a network's is of."""
        parts = self.components.values()
        named = (part for part in parts if part.record.kind == error.kind)
        akin = (part for part in parts if error.part is not None and _root(part.instance) == _root(error.part))
        return next(itertools.chain(named, akin), None)


_LONE_IMAGE = "Expected more than 1 value per channel when training"
"""What torch's BatchNorm says of a batch that is a single value per channel."""


def _root(instance: object) -> str:
    return type(instance).__module__.partition(".")[0]


def _ours(part: Attached) -> bool:
    return part.provider.startswith("lwmfw ")


def _network_failure(network: Attached, error: BaseException, raised: BaseException) -> RunFailed:
    place = place_in(raised, network.provider, network.instance)
    if raised is not error and place:
        return network.failure(f"{place}: {network.name} raised {describe(raised)}")
    return network.failure(f"{network.provider}: {network.name}: {error}")
