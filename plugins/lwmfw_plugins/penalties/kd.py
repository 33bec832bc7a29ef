"""KD: softmax distillation of the old classes (Hinton et al. 2015), as the thesis combines it with POD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins.penalties._adaptive import FORMS, Adaptive, adaptive_factor

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Step

Reduction = Literal["batchmean", "elementwise"]


def softmax_divergence(new: Tensor, old: Tensor, temperature: float, reduction: Reduction, *, square: bool) -> Tensor:
    """Kullback-Leibler divergence KL(old || new) of two softmaxes at a temperature.

    Args:
        new: (B, N_old), logits of the model being trained for the old classes.
        old: (B, N_old), logits of its predecessor.
        temperature: above 0; higher is softer.
        reduction: batchmean sums over classes, elementwise takes the mean, N_old times less; both average over the
            batch.
        square: whether to multiply by temperature**2, which keeps the size of gradients when the temperature changes.

    Returns:
        A scalar, not negative, zero where the logits are equal up to a constant per image.
    """
    from torch.nn.functional import kl_div

    ours, theirs = ((logits / temperature).log_softmax(1) for logits in (new, old))
    divisor = len(new) if reduction == "batchmean" else new.numel()
    factor = temperature**2 if square else 1.0
    return kl_div(ours, theirs, reduction="sum", log_target=True) * factor / divisor


class KDOptions(Options):
    """Options of KD."""

    weight: float = Field(0.9, ge=0, le=1e6, description="factor of the term")
    of: Literal["logits", "similarities"] = Field(
        "logits",
        description="whose softmax: the classifier's logits, or its similarities before a learned scale (the thesis)",
    )
    temperature: float = Field(10.0, gt=0, le=1000, description="temperature of both softmaxes")
    square: bool = Field(True, description="multiply by the squared temperature")
    reduction: Reduction = Field(
        "batchmean",
        description="batchmean: summed over classes; elementwise: averaged over them, as for the thesis' numbers",
    )
    adaptive: Adaptive = Field("none", description=f"factor of the weight. {FORMS}. The thesis' numbers: none")


class SoftmaxDistillation:
    """Keep the old classes' softened probabilities close to the old model's.

    Both softmaxes are over the old classes, which are the first columns. The appendix of the thesis (PODNet-KD, section
    3.2) differs where it is wrong: it compares the last columns, and takes the new model's softmax over all classes
    before it cuts them out, which leaves no distribution; and the block is commented out.
    """

    needs = frozenset({"old"})
    least_classes = 2  # a softmax over one class is 1

    def __init__(self, options: KDOptions) -> None:
        self.options = options
        if options.of == "similarities":
            self.needs |= {"similarities"}

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term KD."""
        options = self.options
        ours, theirs = (self._scores(outputs)[:, : len(step.old_classes)] for outputs in (new, old))
        loss = softmax_divergence(ours, theirs, options.temperature, options.reduction, square=options.square)
        return {"KD": options.weight * adaptive_factor(options.adaptive, step) * loss}

    def _scores(self, outputs: Outputs) -> Tensor:
        return outputs.logits if self.options.of == "logits" else outputs.similarities()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("KD", SoftmaxDistillation, KDOptions)
