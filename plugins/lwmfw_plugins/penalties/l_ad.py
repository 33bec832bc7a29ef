"""L_AD: attention distillation (Dhar et al., Learning without Memorizing, CVPR 2019, section 3.3).

L_AD is the distance between the attentions of the new and the old model for the same image and the same old class:
their Grad-CAM maps, L2-normalised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from lwmfw import Component, Field, Options, Penalty, UserError, hookimpl
from lwmfw_plugins._attention import check_positions, pooled_attention, stage_attention

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Run, Step


def attention_distance(new: Tensor, old: Tensor, distance: Literal["l1", "l2"]) -> Tensor:
    """Distance of two sets of attention vectors, summed over positions, averaged over the batch.

    Args:
        new: (B, L), from `attention`.
        old: (B, L), likewise.
        distance: l1 sums absolute differences, the paper's choice (at most sqrt(2 L)); l2 sums squares (at most 2).

    Returns:
        A scalar, zero for equal attentions.
    """
    difference = new - old
    elements = difference.abs() if distance == "l1" else difference.square()
    return elements.sum(1).mean()


class AttentionOptions(Options):
    """Options of L_AD."""

    weight: float = Field(
        1.0, ge=0, le=1e6, description="factor of the term (gamma in LwM); its meaning depends on H*W"
    )
    distance: Literal["l1", "l2"] = Field("l1", description="l1: absolute differences (the paper); l2: squares")
    layer: Literal["pooled"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "pooled",
        description="pooled: the map the classifier pools (the paper); n: the end of stage n, counted from 1",
    )
    target: Literal["new", "old"] = Field(
        "new",
        description="whose strongest old class is looked at: the new model's (the paper) or the old one's",
    )
    eps: float = Field(1e-6, gt=0, le=1, description="maps weaker than this count as dead")


class AttentionDistillation:
    """Keep the model's attention to an old class, as Grad-CAM shows it, close to the old model's.

    The class b of an image is the strongest old class of the new model, and the same b is used for both models. At the
    pooled map the attention is exact and free of a backward pass; at another stage it comes by autograd, and the
    gradient of L_AD through a second-order graph.

    The new model is in training mode, the old one in evaluation mode. Its BatchNorm layers thus normalise by batch
    statistics and the old one's by running ones, so even equal weights have an L_AD above zero and a gradient; it is
    zero for equal models in evaluation mode. At a stage before the last, BatchNorm in training mode also couples the
    images of a batch; in evaluation mode an image's value does not depend on the others.

    A map that the ReLU zeroes everywhere is a zero vector: it has a distance to the other model's, but no gradient.
    """

    needs = frozenset({"old", "pooled"})
    spares_first_step = True

    def __init__(self, options: AttentionOptions) -> None:
        self.options = options
        if options.layer != "pooled":
            self.needs = frozenset({"old", "maps", "old_graph"})

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Refuse a stage that the backbone does not have, and a map of one position."""
        layer, stages = self.options.layer, run.model.stages
        if layer != "pooled" and layer > stages:
            raise UserError(f"layer: {layer} wanted, but the backbone has {stages} stages; choose one")
        if any(phase.epochs for coming in run.remaining_steps for phase in run.phases(coming)):
            check_positions(run.model, layer)

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term L_AD."""
        chooser = new if self.options.target == "new" else old
        classes = chooser.logits.detach()[:, : len(step.old_classes)].argmax(1)
        ours, theirs = (self._attention(outputs, classes) for outputs in (new, old))
        return {"L_AD": self.options.weight * attention_distance(ours, theirs.detach(), self.options.distance)}

    def _attention(self, outputs: Outputs, classes: Tensor) -> Tensor:
        layer, eps = self.options.layer, self.options.eps
        if layer == "pooled":
            return pooled_attention(outputs, classes, eps)
        return stage_attention(outputs, layer - 1, classes, eps)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("L_AD", AttentionDistillation, AttentionOptions)
