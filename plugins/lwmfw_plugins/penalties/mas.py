"""mas: parameters held by what the output feels of them (memory aware synapses, Aljundi et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Penalty, hookimpl
from lwmfw_plugins.penalties._importance import Holding, ImagesOptions, flat, mean_of_gradients, some_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from lwmfw import ImageSet, Model, Run
    from lwmfw_plugins.penalties._importance import Batches


def sensitivity(model: Model, parameters: Mapping[str, Tensor], batches: Batches) -> Tensor:
    """How much the output feels of each parameter: the mean over images of |d ||F(x)||^2 / d theta| (section 4.1).

    F is the logits of all classes the model has rows for. FACIL takes the norm without its square, and the absolute
    value of a batch's mean gradient, in which images cancel out.

    Args:
        model: gives the logits.
        parameters: of the model, by name.
        batches: images; their labels are not looked at.

    Returns:
        (P,), not negative, in the order of `parameters`.
    """
    return mean_of_gradients(
        model, parameters, batches, lambda logits, _: logits.square().sum(), lambda gradient: gradient.abs()
    )


class MasOptions(ImagesOptions):
    """Options of mas."""

    weight: float = Field(1.0, ge=0, le=1e9, description="factor of the term (lambda; it is halved); FACIL's is 1")
    alpha: float = Field(
        0.5, ge=0, le=1, description="share of earlier importance in its mean with a step's own; FACIL's is 0.5"
    )


class Mas(Holding):
    """Hold parameters in place by how sensitive the logits are to them (memory aware synapses); needs no labels.

    The first step's importance counts in full. FACIL means it with the zero before it, which halves it.
    """

    term = "mas"
    spares_first_step = True

    def __init__(self, options: MasOptions) -> None:
        super().__init__(options, options.weight)
        self.options = options

    @hookimpl
    def after_step(self, run: Run, model: Model, data: ImageSet, rng: Generator) -> None:
        """Take the importance for the step into the mean."""
        parameters = self.parameters(model)
        batches = run.loader.evaluation_batches(some_of(data, self.options.images, rng))
        importance = sensitivity(model, parameters, batches)
        if self.held:
            importance.lerp_(self.held.importance, self.options.alpha)
        self.hold(model, flat(p.detach() for p in parameters.values()), importance)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("mas", Mas, MasOptions)
