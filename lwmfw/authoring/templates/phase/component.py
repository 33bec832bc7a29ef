"""Learn the classifier again, on as many images of every class (Kang et al., ICLR 2020)."""

from dataclasses import replace
import torch
from lwmfw import ExtraPhase, Field, Options, hookimpl


class RetrainOptions(Options):
    epochs: int = Field(10, ge=1, le=10_000, description="passes over the balanced images")


class Retrain:
    """A new classifier on the features as they are, from the second step on."""

    needs = {"memory"}
    spares_first_step = True

    def __init__(self, options: RetrainOptions):
        self.epochs = options.epochs

    @hookimpl
    def plan_phases(self, step, main, name):
        phase = replace(main, name=name, epochs=self.epochs, balanced=True, penalties=False)
        return [phase] if step.index > 1 else None

    @hookimpl
    def group_parameters(self, phase, model, name, rng):
        if phase.name == name:
            model.backbone.requires_grad_(False)  # until the phase ends
            for weight in model.classifier.parameters():
                weight.data.copy_(0.01 * torch.randn(weight.shape, generator=rng))


@hookimpl
def register_components():
    yield ExtraPhase("retrain", Retrain, RetrainOptions)
