"""The components of a run, as the loop and the engine reach them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pluggy

from lwmfw.assembly.calls import Attached, Position, Randomness
from lwmfw.errors import UserError, shown
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.phase import MAIN, Phase
from lwmfw.recipe.scenario import Step

if TYPE_CHECKING:
    from lwmfw.data.images import ImageSet
    from lwmfw.engine.run import Run


@dataclass(frozen=True)
class Assembly:
    """The components of one run.

    Attributes:
        resolved: the recipe they were built from.
        components: name within the recipe -> component, in hook order.
        hook: pluggy's relay; `hook.before_step(...)` calls every implementation in recipe order.
        select_unrefined: the hook select_memory without the refiners.
        first_penalty: the hook compute_penalty of those components alone whose terms count in the first step.
        position: shared with the loop, which keeps it up to date.
        rng: gives every component its generator.
    """

    resolved: Resolved
    components: Mapping[str, Attached]
    hook: pluggy.HookRelay
    select_unrefined: pluggy.HookCaller
    first_penalty: pluggy.HookCaller
    position: Position
    rng: Randomness

    @cached_property
    def needs_old_graph(self) -> bool:
        """Whether the old model's outputs must be differentiable with respect to its maps."""
        return any("old_graph" in part.trait("needs") for part in self.components.values())

    @cached_property
    def needs_old(self) -> bool:
        """Whether the old model has to run."""
        return self.needs_old_graph or any("old" in part.trait("needs") for part in self.components.values())

    @cached_property
    def grows(self) -> bool:
        """Whether the network may grow with the steps."""
        return any("grow_model" in part.hooks for part in self.components.values())

    def only(self, kind: str) -> Attached:
        """The component of a kind of which a recipe has exactly one."""
        return next(part for part in self.components.values() if part.record.kind == kind)

    def of_kind(self, kind: str) -> dict[str, Attached]:
        """All components of a kind, by name."""
        return {name: part for name, part in self.components.items() if part.record.kind == kind}

    def readouts(self) -> list[tuple[dict[str, Any], bool]]:
        """The tables of the read-outs, and whether each is made of sums over images."""
        parts = self.of_kind("readout").values()
        return list(zip(self.resolved.tables()["readouts"], (part.trait("exact") for part in parts), strict=True))

    def method(self, kind: str, method: str) -> Callable[..., Any]:
        """A method of the only component of a kind."""
        return self.only(kind).method(method)

    def check_terms(self, step: Step) -> None:
        """See that the objective and the penalties have classes to tell apart where a step is trained, and penalties
        enough of them for what they make of a step's new classes for the next.

        Raises:
            UserError: one has not.
        """
        objective = self.only("objective")
        over = getattr(objective.chosen.options, "over", "seen")
        classes = step.new_classes if over == "new" else step.seen_classes
        self._check_says(objective, step, classes, over, 'set bce, other steps, or over = "seen"')
        for part in self.of_kind("penalty").values():
            self._check_says(part, step, step.old_classes, "old", "set scenario.first higher, or leave it out")
            new, least = len(step.new_classes), part.trait("least_new")
            if 0 < new < least and step.index < step.total:
                which = "first" if step.index == 1 else "increment"
                raise UserError(
                    f"penalty: {part.name} needs {least} new classes in every step but the last, and step {step.index} "
                    f"has {new}; set scenario.{which} higher, or leave it out"
                )

    def _check_says(self, part: Attached, step: Step, classes: range, which: str, remedy: str) -> None:
        kind, least = part.record.kind, part.trait("least_classes")
        if not 0 < len(classes) < least:
            return
        if any(phase.epochs and (phase.penalties or kind == "objective") for phase in self.phases(step)):
            raise UserError(
                f"{kind}: {part.name} over the {which} classes says nothing in step {step.index}, which has "
                f"{len(classes)} of them, and {least} are needed; {remedy}"
            )

    def chosen_data(self, run: Run, step: Step, data: ImageSet) -> ImageSet:
        """What components leave of the images of a step, one after another."""
        for part in self.components.values():
            if "choose_data" in part.hooks:
                chosen: ImageSet | None = part.hook("choose_data")(run, step, data, run.rng)
                data = data if chosen is None else chosen
        return data

    def phases(self, step: Step) -> list[Phase]:
        """All phases of a step, the main one first.

        Raises:
            UserError: two have one name, or one is of balanced images and there is no memory to balance them by.
        """
        main = Phase(MAIN, **self.resolved.recipe.training.settings(step.index).model_dump())
        phases, of = [main], {MAIN: "[training]"}
        for part, more in self.hook.plan_phases(step=step, main=main):
            for phase in more:
                who = f"{part.provider}: {part.name}.plan_phases plans phase '{shown(phase.name)}'"
                if phase.name in of:
                    raise UserError(f"{who} in step {step.index}, as {of[phase.name]} does; name it apart")
                if phase.balanced and self.resolved.recipe.memory is None:
                    raise UserError(f"{who} of balanced images, but the recipe keeps no exemplars; add [memory]")
                phases.append(phase)
                of[phase.name] = f"{part.name} of {part.provider}"
        return phases
