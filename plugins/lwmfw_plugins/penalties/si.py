"""si: parameters held by what they did for the loss on their way (synaptic intelligence, Zenke et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Penalty, hookimpl
from lwmfw_plugins.penalties._importance import HeldOptions, Holding, flat

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Model


def gains(gradient: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """By how much an update lowered the loss, to first order, and each parameter's part in it.

    Args:
        gradient: (P,), of the loss, before the update.
        before: (P,), the parameters.
        after: (P,), as the optimiser left them: with its momentum and weight decay.

    Returns:
        (P,); negative where a parameter moved up the gradient.
    """
    return gradient * (before - after)


def path_importance(gained: Tensor, moved: Tensor, damping: float) -> Tensor:
    """What a step adds to the importance: the gains on the way, by the square of the way (equation 5).

    Args:
        gained: (P,), the sum of a step's `gains`.
        moved: (P,), end minus beginning.
        damping: xi, above 0.

    Returns:
        (P,); negative where a parameter's way made the loss worse.
    """
    return gained / (moved.square() + damping)


class SiOptions(HeldOptions):
    """Options of si."""

    weight: float = Field(0.1, ge=0, le=1e9, description="factor of the term (c; it is not halved); FACIL's is 0.1")
    damping: float = Field(
        0.1,
        gt=0,
        le=1e6,
        description="xi, added to the squared distance that a parameter moved; the paper's and FACIL's value",
    )


class Si(Holding):
    """Hold parameters in place by how much they lowered the loss of earlier steps (synaptic intelligence).

    The gradient is the one that the optimiser saw, less that of this term, which is known in closed form: as in the
    paper, what the spring does earns no importance. Other penalties count as part of the loss. The way is the one that
    was really gone. With weight decay, momentum and the noise of batches in it, the gains come to more than the loss's
    fall. What all steps together add is never below 0, as in the authors' code: FACIL and Mammoth leave it negative,
    which pushes parameters away.
    """

    term = "si"

    def __init__(self, options: SiOptions) -> None:
        super().__init__(options, 2 * options.weight)  # the energy of springs is halved, c is not
        self.options, self._pulled = options, False
        self._gained: Tensor | None = None  # on the way of a step; None: the step has ended

    @hookimpl
    def before_step(self, model: Model) -> None:
        """Begin a way."""
        super().before_step(model)
        self._start = self._before = self._values(model)
        self._gained = self._start.new_zeros(self._start.shape)

    @hookimpl
    def compute_penalty(self, model: Model) -> dict[str, Tensor] | None:
        """The term."""
        terms = super().compute_penalty(model)
        self._pulled = terms is not None
        return terms

    @hookimpl
    def after_update(self, model: Model) -> None:
        """Go on: what the update gained."""
        assert self._gained is not None, "a step has begun"  # noqa: S101
        gradient, after = self._gradient(model), self._values(model)
        if self._pulled and self.held and self.stiffness is not None:  # the last two for the type checker
            gradient -= self.stiffness * (self._before - self.held.anchors)
        self._gained += gains(gradient, self._before, after)
        self._before, self._pulled = after, False

    @hookimpl
    def after_step(self, model: Model) -> None:
        """The way has ended: add what it says of importance."""
        assert self._gained is not None, "a step has begun"  # noqa: S101
        end = self._values(model)
        importance = path_importance(self._gained, end - self._start, self.options.damping)
        if self.held:
            importance += self.held.importance
        self.hold(model, end, importance.clamp(min=0))
        self._gained = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: inside a step also how far its way has come."""
        way = {} if self._gained is None else {"gained": self._gained, "before": self._before}
        return super().state() | way

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        super().restore({key: value for key, value in state.items() if key not in ("gained", "before")})
        if "gained" in state:
            self._gained, self._before = state["gained"].clone(), state["before"]

    def _values(self, model: Model) -> Tensor:
        return flat(p.detach() for p in self.parameters(model).values())

    def _gradient(self, model: Model) -> Tensor:
        """Zero where there is none, as for what is frozen."""
        import torch

        return flat(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters(model).values())


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("si", Si, SiOptions)
