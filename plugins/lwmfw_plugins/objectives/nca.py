"""nca: neighbourhood components analysis with a margin (PODNet, Douillard et al., ECCV 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Objective, ObjectiveOptions, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Model


def nca(logits: Tensor, labels: Tensor, margin: Tensor | float, *, legacy: bool = False, hinge: bool = True) -> Tensor:
    """max(0, -log(exp(o_y - margin) / sum over i != y of exp(o_i))), averaged over the batch.

    In the published code the margin is subtracted from every class, so it cancels; and the positive, excluded by a
    zero after the row's maximum was subtracted, still contributes exp(0). Together that is a cross-entropy whose
    denominator has the row's maximum in the place of the positive: equal to it where the positive is the maximum.

    The published code has no max(0, .) either. Its loss is never negative and needs none. Without `legacy` it is what
    the margin works by: it alone ends the pull on an image that leads by enough, and keeps a learned scale finite.

    Args:
        logits: (B, N), similarities times the learned scale; N at least 2 unless `legacy`.
        labels: (B,), int64, 0..N-1.
        margin: in units of the logits; unused by `legacy`.
        legacy: the published code's form.
        hinge: whether the loss of an image is at least 0.

    Returns:
        A scalar; without `legacy` and `hinge` it has no lower bound.
    """
    positions = labels[:, None]
    positive = logits.gather(1, positions)
    if legacy:
        margin, others = 0.0, logits.scatter(1, positions, logits.amax(1, keepdim=True))
    else:
        others = logits.scatter(1, positions, -float("inf"))
    losses = others.logsumexp(1) - positive[:, 0] + margin
    return (losses.relu() if hinge else losses).mean()


class NCAOptions(ObjectiveOptions):
    """Options of nca."""

    over: Literal["new", "seen"] = Field("seen", description="which classes the loss is taken over")
    margin: float = Field(0.6, ge=0, le=1000, description="margin of the right class, in units of similarity (delta)")
    legacy_margin: bool = Field(
        False,
        description="as in PODNet's code: the margin cancels out and the positive is not excluded; its numbers need it",
    )
    hinge: bool = Field(
        True, description="no reward for a lead beyond the margin; without it the margin only holds the scale back"
    )


class NCA:
    """The right class must beat all others together by a margin (NCA loss); averaged over the batch.

    The margin is one of similarities, so it is multiplied by the scale that the classifier has learned, if it has one.
    """

    least_classes = 2

    def __init__(self, options: NCAOptions) -> None:
        self.options = options
        self.scale: Tensor | float = 1.0

    @hookimpl
    def before_step(self, model: Model) -> None:
        """Take the classifier's scale."""
        self.scale = getattr(model.classifier, "scale", 1.0)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar for logits (B, N) and labels (B,) in 0..N-1."""
        options = self.options
        return nca(logits, labels, self.scale * options.margin, legacy=options.legacy_margin, hinge=options.hinge)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Objective("nca", NCA, NCAOptions)
