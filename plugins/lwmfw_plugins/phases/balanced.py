"""balanced: fine-tuning on as many images of every class, against the pull of the many new ones.

After a step's main phase new classes have had ten times the images of old ones. EEIL (Castro et al., ECCV 2018), UCIR's
"class-balance fine-tuning" and PODNet's published code end a step with some epochs on exemplars, those of the new
classes included. PODNet: the classifier alone, penalties on; UCIR: everything, cross-entropy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, ExtraPhase, Field, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw import Model, Phase, Step


class BalancedOptions(Options):
    """Options of balanced."""

    epochs: int = Field(20, ge=1, le=100_000, description="passes over the balanced images")
    lr: float = Field(0.05, gt=0, le=1000, description="learning rate at the start of the phase")
    schedule: Literal["cosine", "steps", "constant"] = Field("constant", description="as training.schedule")
    trains: Literal["classifier", "all"] = Field("classifier", description="what learns")
    penalties: bool = Field(True, description="whether the penalties' terms stay part of the loss")


class Balanced:
    """Fine-tuning of classifier or model on as many images of old as of new classes, from the second step on."""

    needs = frozenset({"memory"})
    spares_first_step = True

    def __init__(self, options: BalancedOptions) -> None:
        self.options = options

    @hookimpl
    def plan_phases(self, step: Step, main: Phase, name: str) -> list[Phase] | None:
        """One phase, with the main phase's batch size and optimiser."""
        if step.index == 1:
            return None
        changed = {
            "name": name,
            "balanced": True,
            **self.options.model_dump(include={"epochs", "lr", "schedule", "penalties"}),
        }
        return [replace(main, **changed)]

    @hookimpl
    def group_parameters(self, phase: Phase, model: Model, name: str) -> None:
        """Keep the backbone as it is."""
        if phase.name == name and self.options.trains == "classifier":
            model.backbone.requires_grad_(False)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield ExtraPhase("balanced", Balanced, BalancedOptions)
