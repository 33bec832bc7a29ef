"""wa: new classes' weight vectors are made as long as old ones' (Zhao et al., CVPR 2020).

After a step, w_new <- gamma w_new with gamma = mean |w_old| / mean |w_new|: beside few or no images of
old classes, training makes the new classes' vectors longer and so their scores larger. The distillation beside it is
that of `_blend.py`. The aligned classifier is what is measured, and the next step's old model.

The paper writes scores as W^T f, without biases. Ours has them; they are left as they are, which is what public code
does and a choice where the paper has none. `clip` keeps weights from 0 up, so that longer vectors do mean larger
scores of features that a ReLU left: it is the paper's as we know it, which we could not verify, and public code lacks
it. It acts from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins.penalties._blend import blended_distillation, rows

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Model, Outputs, Step, StepResult

_SHORTEST = 1e-12  # a mean length; shorter vectors than that are no direction to scale


def alignment(weight: Tensor, known: int) -> Tensor:
    """gamma: mean length of the old classes' weight vectors over that of the new ones'.

    Args:
        weight: (N, D), a row per class, old classes first.
        known: N_old, in 1..N-1.

    Returns:
        A scalar from 0 up; finite where new vectors are zero.
    """
    from torch.linalg import vector_norm

    old, new = (vector_norm(part, dim=1).mean() for part in (weight[:known], weight[known:]))
    gamma: Tensor = old / new.clamp(min=_SHORTEST)
    return gamma


class AlignmentOptions(Options):
    """Options of wa."""

    temperature: float = Field(
        2.0, gt=0, le=1000, description="temperature of the distillation's softmaxes; the paper's is 2"
    )
    clip: bool = Field(
        True,
        description="set negative weights of the classifier to 0 after every update; the paper's, as far as we know",
    )


class WeightAlignment:
    """Distil the old classes' scores, then scale new weight vectors to the length of old ones; needs no exemplars.

    gamma of each step is in its results.
    """

    needs = frozenset({"old", "rows"})
    least_classes = 2  # a softmax over one class is 1

    def __init__(self, options: AlignmentOptions) -> None:
        self.options = options
        self.spares_first_step = not options.clip
        self.gamma = 1.0

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term wa: the distillation."""
        return {"wa": blended_distillation(step, new, old, self.options.temperature)}

    @hookimpl
    def after_update(self, model: Model) -> None:
        """Keep the classifier's weights from 0 up."""
        if self.options.clip:
            weight, _ = rows(model)
            weight.clamp_(min=0)

    @hookimpl
    def after_training(self, step: Step, model: Model) -> None:
        """Align the new classes' weight vectors."""
        if step.index > 1:
            (weight, _), known = rows(model), len(step.old_classes)
            gamma = alignment(weight, known)
            weight[known:] *= gamma
            self.gamma = float(gamma)

    @hookimpl
    def after_step(self, step: Step, result: StepResult, name: str) -> None:
        """Note gamma."""
        if step.index > 1:
            result.extra[name] = {"gamma": self.gamma}

    def state(self) -> dict[str, float]:
        """What is still to be said in the results."""
        return {"gamma": self.gamma}

    def restore(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""
        self.gamma = state["gamma"]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("wa", WeightAlignment, AlignmentOptions)
