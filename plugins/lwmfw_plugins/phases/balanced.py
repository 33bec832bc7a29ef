"""balanced: fine-tuning on as many images of every class, against the pull of the many new ones.

After a step's main phase new classes have had ten times the images of old ones. EEIL (Castro et al., ECCV 2018), UCIR's
"class-balance fine-tuning" and PODNet's published code end a step with some epochs on exemplars, those of the new
classes included. PODNet: the classifier's proxies alone, the whole network in training mode, penalties on; UCIR:
everything, cross-entropy alone; DER (Yan et al., CVPR 2021, section 3.4): the classifier alone and drawn anew,
cross-entropy alone at a temperature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, ExtraPhase, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import Model, Phase, Step


def draw_anew(weight: Tensor, bias: Tensor, rng: Generator) -> None:
    """Draw the rows of a classifier, (N, D) and (N,), as torch draws those of a linear layer."""
    import torch

    bound = weight.shape[1] ** -0.5
    with torch.no_grad():
        for part in (weight, bias):
            part.copy_(torch.empty(part.shape).uniform_(-bound, bound, generator=rng))


class BalancedOptions(Options):
    """Options of balanced."""

    epochs: int = Field(20, ge=1, le=100_000, description="passes over the balanced images")
    lr: float = Field(0.05, gt=0, le=1000, description="learning rate at the start of the phase")
    schedule: Literal["cosine", "steps", "constant"] = Field("constant", description="as training.schedule")
    trains: Literal["directions", "classifier", "all"] = Field(
        "classifier", description="what learns; directions: the classifier without its factor eta (PODNet's code)"
    )
    batchnorm: Literal["main", "always"] = Field(
        "main",
        description="main: as in the main phase, and what does not learn stays as it is; always: by the batch, which "
        "running statistics follow, in a backbone too that does not learn (PODNet's code)",
    )
    penalties: bool = Field(True, description="whether the penalties' terms stay part of the loss")
    fresh: bool = Field(
        False, description="whether the classifier is reinitialised first, rows of old classes included (DER)"
    )
    temperature: float = Field(
        1.0, gt=0, le=1000, description="divisor of the logits in the classification loss; DER on CIFAR-100: 5"
    )


class Balanced:
    """Fine-tune the classifier or the model on equally many images of every class, from the second step on."""

    needs = frozenset({"memory"})
    spares_first_step = True

    def __init__(self, options: BalancedOptions) -> None:
        self.options = options
        if options.fresh:
            self.needs |= {"rows"}
        if options.trains == "directions":
            self.needs |= {"similarities"}

    @hookimpl
    def plan_phases(self, step: Step, main: Phase, name: str) -> list[Phase] | None:
        """One phase, with the main phase's batch size and optimiser."""
        if step.index == 1:
            return None
        changed = {
            "name": name,
            "balanced": True,
            **self.options.model_dump(include={"epochs", "lr", "schedule", "penalties", "temperature"}),
        }
        if self.options.batchnorm == "always":
            changed["batchnorm"] = "always"
        return [replace(main, **changed)]

    @hookimpl
    def group_parameters(self, phase: Phase, model: Model, name: str, rng: Generator) -> None:
        """Keep the backbone as it is, and eta; draw the classifier anew."""
        if phase.name != name:
            return
        if self.options.trains != "all":
            model.backbone.requires_grad_(False)
        if self.options.trains == "directions":
            scale = getattr(model.classifier, "scale", None)
            if scale is not None:  # or there is none that learns
                scale.requires_grad_(False)
        if self.options.fresh:
            draw_anew(model.classifier.weight, model.classifier.bias, rng)  # type: ignore[arg-type]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield ExtraPhase("balanced", Balanced, BalancedOptions)
