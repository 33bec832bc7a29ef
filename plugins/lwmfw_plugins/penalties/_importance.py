"""What ewc, si and mas share: parameters that are held near where earlier steps left them, each by its importance.

All parameters are one vector, so that the penalty is a few operations whatever their number. The vector follows the
order of the model's named parameters; where a parameter grows, what is held keeps its leading rows, and new rows are
free. BatchNorm's running statistics are no parameters: they follow the new classes, however firmly the rest is held.
Importance is measured with the statistics as they are and does not move them; FACIL measures in training mode.

Above a stiffness of 1 / learning rate a spring holds no firmer, and a little higher it makes SGD diverge. PyCIL limits
the Fisher information to 1e-4, which at its weight of 1000 is a stiffness of 0.1; the papers have no limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lwmfw import Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import ImageSet, Model

_IMAGES = 16  # whose gradients are held at a time: the fastest on a CPU
_VALUES = 2**26  # of those gradients at most, 256 MB

Batches = Iterable[tuple["Tensor", "Tensor"]]
"""Normalised images (B, C, H, W), and something known of each, (B,)."""


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All values of tensors, one after another, (P,)."""
    import torch

    return torch.cat([tensor.flatten() for tensor in tensors])


def spring_energy(values: Tensor, anchors: Tensor, stiffness: Tensor) -> Tensor:
    """1/2 sum_i stiffness_i (values_i - anchors_i)^2.

    Args:
        values: (P,), the parameters.
        anchors: (P,), where they are drawn to.
        stiffness: (P,), how strongly.

    Returns:
        A scalar, zero at the anchors.
    """
    difference = values - anchors
    return difference @ (stiffness * difference) / 2


def placed(vector: Tensor, shapes: Mapping[str, list[int]], parameters: Mapping[str, Tensor]) -> Tensor:
    """Values that belong to parameters, in the places that those have now.

    Args:
        vector: (P,).
        shapes: name -> shape of the parameters when the vector was made, in its order.
        parameters: those of now, by name; of one that has grown, the leading part is the one that was there.

    Returns:
        (Q,), in the order of `parameters` and on their device; zero where nothing was. What is gone is left out.
    """
    import torch

    now = {name: torch.zeros(p.shape, dtype=p.dtype, device=p.device) for name, p in parameters.items()}
    before = vector.split([math.prod(shape) for shape in shapes.values()])
    for (name, shape), values in zip(shapes.items(), before, strict=True):
        if name in now:
            now[name][tuple(map(slice, shape))] = values.view(shape).to(now[name])
    return flat(now.values())


def mean_of_gradients(
    model: Model,
    parameters: Mapping[str, Tensor],
    batches: Batches,
    score: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> Tensor:
    """The mean over images of a measure of each image's own gradient.

    The model is in evaluation mode and computes in float32; both are afterwards as they were. At most 16 images, or
    256 MB of gradients, are held at a time.

    Args:
        model: gives the logits.
        parameters: of the model, by name: with respect to what the gradient is.
        batches: images, and what `score` is told of each.
        score: the logits (N,) of an image and what is known of it -> the scalar that is differentiated.
        measure: what is averaged of a gradient, element by element, such as its square.

    Returns:
        (P,), in the order of `parameters`.
    """
    import torch
    from torch.func import functional_call, grad, vmap

    from lwmfw import evaluating, full_precision

    def scored(values: dict[str, Tensor], image: Tensor, known: Tensor) -> Tensor:
        return score(functional_call(model, values, (image[None],)).logits[0], known)

    each_gradient = vmap(grad(scored), in_dims=(None, 0, 0))
    values = {name: p.detach() for name, p in parameters.items()}
    total, count = torch.zeros_like(flat(values.values())), 0
    chunk = max(1, min(_IMAGES, _VALUES // len(total)))
    with evaluating(model), full_precision(model):
        for images, known in batches:
            for part in zip(images.split(chunk), known.split(chunk), strict=True):
                total += flat(measure(gradients).sum(0) for gradients in each_gradient(values, *part).values())
            count += len(images)
    return total / count


def some_of(images: ImageSet, most: int, rng: Generator) -> ImageSet:
    """At most so many images, drawn at random; 0: all of them."""
    import torch

    if not 0 < most < len(images):
        return images
    return images.select(torch.randperm(len(images), generator=rng)[:most].sort().values)


class Held(NamedTuple):
    """What parameters are held by.

    Attributes:
        anchors: (P,), where they are drawn to.
        importance: (P,), how strongly.
        shapes: name -> shape of the parameters, in the order of the vectors.
    """

    anchors: Tensor
    importance: Tensor
    shapes: dict[str, list[int]]


class HeldOptions(Options):
    """Options of ewc, si and mas."""

    limit: float = Field(
        10.0,
        ge=0,
        le=1e9,
        description="largest stiffness of a parameter, the term's gradient per distance: weight * importance, twice "
        "that for si; SGD needs it below 2 (1 + momentum) / learning rate; 0: no limit, as in the papers",
    )
    heads: bool = Field(
        False,
        description="whether the classifier's rows of old classes are held too (PyCIL, Mammoth), or the backbone alone "
        "(FACIL)",
    )


class ImagesOptions(HeldOptions):
    """Options of ewc and mas."""

    images: int = Field(
        500,
        ge=0,
        le=1_000_000_000,
        description="how many of a step's training images, drawn at random, the importance is measured on; 0: all",
    )


class Holding:
    """A penalty on the distance of parameters from where earlier steps left them; no term before a step has ended.

    Its gradient is stiffness times distance, and stiffness is weight times importance, within its limit.

    Attributes:
        term: its name.
        held: what holds the parameters; None: nothing yet.
    """

    term: ClassVar[str]
    needs = frozenset(
        {"features"}
    )  # of a network that stays the one it is: what grows would lie elsewhere in the vector

    def __init__(self, options: HeldOptions, weight: float) -> None:
        self.held: Held | None = None
        self.stiffness: Tensor | None = None
        self._weight, self._limit = weight, options.limit or math.inf
        self._kept = ("backbone.", "classifier.") if options.heads else ("backbone.",)

    def parameters(self, model: Model) -> dict[str, Tensor]:
        """The parameters that are held, by name."""
        return {name: p for name, p in model.named_parameters() if name.startswith(self._kept)}

    def hold(self, model: Model, anchors: Tensor, importance: Tensor) -> None:
        """Hold the parameters, from the next step on."""
        shapes = {name: list(p.shape) for name, p in self.parameters(model).items()}
        self.held, self.stiffness = Held(anchors, importance, shapes), None

    @hookimpl
    def before_step(self, model: Model) -> None:
        """Make room for rows that have been added."""
        if self.held:
            parameters = self.parameters(model)
            anchors, importance = (placed(v, self.held.shapes, parameters) for v in self.held[:2])
            self.hold(model, anchors, importance)
            self.stiffness = (self._weight * importance).clamp(max=self._limit)

    @hookimpl
    def compute_penalty(self, model: Model) -> dict[str, Tensor] | None:
        """The term: the energy of the springs."""
        if self.held is None or self.stiffness is None:
            return None
        values = flat(self.parameters(model).values())
        return {self.term: spring_energy(values, self.held.anchors, self.stiffness)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.held._asdict() if self.held else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.held = Held(**state) if state else None
