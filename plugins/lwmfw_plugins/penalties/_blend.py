"""What BiC and WA share: cross-entropy and distillation, blended by the share of old classes; a classifier's rows.

Both minimise (1 - k) CE + k KD with k = N_old / N, the share of old classes among those seen. Here the objective is in
the sum with its own weight, so what is added is k / (1 - k) KD = N_old / N_new KD: the papers' loss divided by 1 - k,
with the same minimum and a gradient N / N_new times as long. In a step with few new classes that is a larger step size
than the papers', and a choice of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lwmfw_plugins.penalties.l_d import softmax_distillation

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Model, Outputs, Step


def blended_distillation(step: Step, new: Outputs, old: Outputs, temperature: float) -> Tensor:
    """N_old / N_new times the cross-entropy of both models' softmaxes over the old classes.

    Args:
        step: from the second one on, with N_old old and N_new new classes.
        new: outputs of the model being trained.
        old: outputs of its predecessor for the same images.
        temperature: of both softmaxes, above 0; not squared into the weight, as in both papers.

    Returns:
        A scalar. Its gradient is zero where the old classes' logits are equal up to a constant per image.
    """
    known, added = len(step.old_classes), len(step.new_classes)
    return known / added * softmax_distillation(new.logits[:, :known], old.logits[:, :known], temperature)


def rows(model: Model) -> tuple[Tensor, Tensor]:
    """Weight (N, D) and bias (N,) of a classifier that offers rows, without gradients: it changes with them."""
    weight, bias = cast("tuple[Tensor, Tensor]", (model.classifier.weight, model.classifier.bias))
    return weight.detach(), bias.detach()
