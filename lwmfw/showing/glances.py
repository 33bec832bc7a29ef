"""Where a run looks in an image for a class, step by step: the mathematics, and what is told of it.

A class is forgotten when the model no longer looks at what told the class apart (Dhar et al., CVPR 2019, figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from lwmfw.model.attention import attention, attention_drift
from lwmfw.model.outputs import Outputs
from lwmfw.using.predict import Said

Scores = Callable[[Tensor], Tensor]
Because = Literal["asked for", "its own", "said"]

EPS = 1e-30  # in float64: the scores of a read-out are of any scale, and only a map of zeros is dead


def looked_at(outputs: Outputs, scores: Scores, classes: Tensor) -> Tensor:
    """Where an image is looked at for a class: Grad-CAM at the map whose spatial mean scores are computed of.

    There the gradient is that with respect to the features, over H*W, at every position: no backward pass through the
    backbone. A channel that is zero everywhere adds nothing, whatever its weight; that of a root is infinite there.

    Args:
        outputs: of a model for B images, with a pooled map.
        scores: of a read-out, (B, D) -> (B, N), differentiable.
        classes: (B,), int64, below N.

    Returns:
        (B, H, W), float64, not negative, each of length 1; zeros where the ReLU leaves nothing.
    """
    assert outputs.pooled is not None, "a need"  # noqa: S101
    maps = outputs.pooled.double()
    weights = replace(outputs, head=scores).channel_weights(classes).double()
    return attention(maps, weights.where(maps.flatten(2).any(2), 0.0), EPS).view(-1, *maps.shape[2:])


def with_drift(glances: Sequence[Glance]) -> list[Glance]:
    """The glances of an image with the distance of each to the first that knows the class."""
    first = next((each.attention for each in glances if each.attention is not None), None)

    def told(each: Glance) -> Glance:
        if first is None or each.attention is None or not first.any() or each.dead:
            return each
        return replace(each, l1=attention_drift(each.attention[None], first[None])[0].item())

    return [told(each) for each in glances]


@dataclass(frozen=True)
class Glance:
    """What a run, as a step left it, makes of an image.

    Attributes:
        step: its number.
        says: the class that it says the image is of; None: it knows nothing of any.
        own: what it says of the class that is explained; None: it does not know that class.
        attention: where it looks for that class, (H, W), float64, of length 1 or zeros; None as `own`.
        l1: by how much that is elsewhere than in the first glance with attention, 0..sqrt(2 H W); None: it is
            nowhere, or was nowhere at first.
    """

    step: int
    says: Said | None
    own: Said | None
    attention: Tensor | None
    l1: float | None = None

    @property
    def dead(self) -> bool:
        """Whether the ReLU leaves nothing of its attention."""
        return self.attention is not None and not self.attention.any()


@dataclass(frozen=True)
class Row:
    """What a run makes of an image, step by step.

    Attributes:
        run: its directory.
        name: its recipe, or the directory where several are of one recipe.
        readout: which one is asked.
        probability: what the softmax of its scores is; empty: it is nothing.
        pixels: the image as it sees it, (C, H, W), uint8.
        glances: of each step that is kept, in order.
        not_kept: finished steps without a checkpoint.
    """

    run: Path
    name: str
    readout: str
    probability: str
    pixels: Tensor
    glances: list[Glance]
    not_kept: list[int]


@dataclass(frozen=True)
class Explanation:
    """An image, the class that it is looked at for, and a row for each run.

    Attributes:
        image: its file, or "test image N".
        wanted: the class.
        because: what makes it that: it was asked for, is the image's own, or is what the run, or most of several, says
            at its end.
        rows: one for each run.
    """

    image: str
    wanted: str
    because: Because
    rows: list[Row]

    @property
    def steps(self) -> list[int]:
        """Those of which a run has a glance."""
        return sorted({glance.step for row in self.rows for glance in row.glances})

    def _repr_png_(self) -> bytes:
        from lwmfw.showing.attention_figure import drawn

        return drawn([self], "png")
