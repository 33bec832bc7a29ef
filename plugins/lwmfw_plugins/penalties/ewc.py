"""ewc: parameters held by their Fisher information (elastic weight consolidation, Kirkpatrick et al., PNAS 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Penalty, hookimpl
from lwmfw_plugins.penalties._importance import Holding, ImagesOptions, flat, mean_of_gradients, some_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from lwmfw import ImageSet, Model, Run
    from lwmfw_plugins.penalties._importance import Batches


def fisher_diagonal(
    model: Model, parameters: Mapping[str, Tensor], batches: Batches, form: Literal["true", "empirical"]
) -> Tensor:
    """The diagonal of the Fisher information: the mean over images of the squared gradient of log p(y | image).

    p is the softmax over all classes the model has rows for, whatever it is trained with. Public implementations
    often square the gradient of a batch's mean instead, which is another quantity and shrinks with the batch.

    Args:
        model: gives the logits.
        parameters: of the model, by name.
        batches: images; with "empirical" their labels (B,), int64, with "true" a uniform number each, (B,), in 0..1.
        form: empirical: y is the label; true: y is drawn from p, which leaves the expectation over y what it is.

    Returns:
        (P,), not negative, in the order of `parameters`.
    """
    from torch.nn.functional import cross_entropy

    def surprise(logits: Tensor, known: Tensor) -> Tensor:
        return cross_entropy(logits, known if form == "empirical" else drawn_class(logits, known))

    return mean_of_gradients(model, parameters, batches, surprise, lambda gradient: gradient.square())


def drawn_class(logits: Tensor, number: Tensor) -> Tensor:
    """The class that a uniform number draws from a softmax: the softmax cuts 0..1 into parts, the number is in one.

    Args:
        logits: (N,).
        number: a scalar in 0..1.

    Returns:
        A scalar, int64, in 0..N-1.
    """
    below = logits.softmax(0).cumsum(0) <= number
    return below[:-1].sum()  # the last part ends at 1, however its end is rounded


def joined(anchors: Tensor, importance: Tensor, more_anchors: Tensor, more_importance: Tensor) -> tuple[Tensor, Tensor]:
    """One weighted square in place of two: their sum, less a constant that has no gradient.

    a (x - m)^2 + b (x - n)^2 = (a + b) (x - (a m + b n) / (a + b))^2 + constant. A penalty for every finished step
    thus costs what one costs.

    Args:
        anchors: (P,).
        importance: (P,), not negative.
        more_anchors: (P,).
        more_importance: (P,), not negative.

    Returns:
        Anchors and importance, (P,) each; where neither has importance, the anchors stay.
    """
    total = importance + more_importance
    share = (more_importance / total).nan_to_num(0.0)
    return anchors + share * (more_anchors - anchors), total


class EwcOptions(ImagesOptions):
    """Options of ewc."""

    weight: float = Field(
        5000.0, ge=0, le=1e9, description="factor of the term (lambda; it is halved); FACIL's is 5000"
    )
    form: Literal["true", "empirical"] = Field(
        "true",
        description="form of the Fisher information. true: labels drawn from the model, one per image, of noisy "
        "scale for a confident model; empirical: the images' own labels",
    )
    fusion: Literal["separate", "online"] = Field(
        "separate",
        description="separate: a penalty for every finished step (the paper); online: one around the newest parameters",
    )
    gamma: float = Field(1.0, ge=0, le=1, description="online: share of earlier importance that is left after a step")


class Ewc(Holding):
    """Hold parameters in place by the Fisher information of earlier steps (elastic weight consolidation).

    With "separate" the penalties of all finished steps are one, as `joined` has it: where no stiffness reaches its
    limit, the term is their sum less a constant. A step's images include its exemplars, whose classes thus count again.
    """

    term = "ewc"
    least_classes = 2  # of a softmax over one class nothing is felt
    spares_first_step = True

    def __init__(self, options: EwcOptions) -> None:
        super().__init__(options, options.weight)
        self.options = options

    @hookimpl
    def after_step(self, run: Run, model: Model, data: ImageSet, rng: Generator) -> None:
        """Add the importance for the step."""
        options, parameters = self.options, self.parameters(model)
        batches = run.loader.evaluation_batches(some_of(data, options.images, rng))
        told = batches if options.form == "empirical" else numbered(batches, rng)
        anchors = flat(p.detach() for p in parameters.values())
        importance = fisher_diagonal(model, parameters, told, options.form)
        if self.held and options.fusion == "separate":
            anchors, importance = joined(self.held.anchors, self.held.importance, anchors, importance)
        elif self.held:
            importance += options.gamma * self.held.importance
        self.hold(model, anchors, importance)


def numbered(batches: Batches, rng: Generator) -> Batches:
    """Images with a uniform number each in place of their labels."""
    import torch

    for images, _ in batches:
        yield images, torch.rand(len(images), generator=rng).to(images.device)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("ewc", Ewc, EwcOptions)
