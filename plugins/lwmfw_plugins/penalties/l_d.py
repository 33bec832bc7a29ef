"""L_D: distillation of the old classes' scores (Learning without Forgetting; LwM, CVPR 2019, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Options, Penalty, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Step


def sigmoid_distillation(new: Tensor, old: Tensor) -> Tensor:
    """Binary cross-entropy between the sigmoids of two sets of logits, summed over classes, averaged over the batch.

    The paper prints only the term -s(old) log s(new), which alone is minimal when every new logit goes to plus
    infinity; its baseline LwF-MC and all public implementations use the full cross-entropy, as is done here.

    Args:
        new: (B, N_old), logits of the model being trained for the old classes.
        old: (B, N_old), logits of its predecessor.

    Returns:
        A scalar. Its gradient is zero where the logits are equal; its value is the entropy of the old sigmoids.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(new, old.sigmoid(), reduction="sum") / len(new)


def softmax_distillation(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between softmaxes at a temperature (Hinton et al. 2015), summed over classes, batch mean.

    Without the factor temperature**2, as LwF's public implementations have it; the weight carries it.

    Args:
        new: (B, N_old), logits of the model being trained for the old classes.
        old: (B, N_old), logits of its predecessor.
        temperature: above 0; higher is softer.

    Returns:
        A scalar. Its gradient is zero where the logits are equal up to a constant per image.
    """
    targets = (old / temperature).softmax(1)
    return -(targets * (new / temperature).log_softmax(1)).sum(1).mean()


class DistillationOptions(Options):
    """Options of L_D."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term (beta in LwM)")
    form: Literal["sigmoid", "softmax"] = Field("sigmoid", description="full binary cross-entropy, or softmaxes")
    temperature: float = Field(2.0, gt=0, le=1000, description="temperature of the softmaxes; unused by sigmoid")


class Distillation:
    """Keep the old classes' scores on the new images close to the old model's."""

    needs = frozenset({"old"})

    def __init__(self, options: DistillationOptions) -> None:
        self.options = options
        self.least_classes = 2 if options.form == "softmax" else 1

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term L_D."""
        ours, theirs = (outputs.logits[:, : len(step.old_classes)] for outputs in (new, old))
        if self.options.form == "sigmoid":
            loss = sigmoid_distillation(ours, theirs)
        else:
            loss = softmax_distillation(ours, theirs, self.options.temperature)
        return {"L_D": self.options.weight * loss}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("L_D", Distillation, DistillationOptions)
