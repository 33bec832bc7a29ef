"""margin-ranking: exemplars stay clear of the new classes (UCIR, Hou et al., CVPR 2019, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins.penalties._adaptive import FORMS, Adaptive, adaptive_factor

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Batch, Outputs, Step


def margin_ranking(
    similarities: Tensor, labels: Tensor, exemplars: Tensor, old_classes: int, margin: float, hardest: int
) -> Tensor:
    """How far an exemplar's own class fails to lead the new classes nearest to it by a margin.

    max(0, margin - s_own + s_new), averaged over the exemplars of the batch and the hardest new classes of each. The
    paper's formula sums over the classes; its code, and so the published weight, takes the mean.

    Args:
        similarities: (B, N), of images and classes, before any learned scale.
        labels: (B,), int64, 0..N-1.
        exemplars: (B,), bool, the images that count; their labels are below `old_classes`.
        old_classes: how many of the first columns are old; the others are new.
        margin: in units of the similarities.
        hardest: how many new classes count (K), those most alike; all if there are fewer.

    Returns:
        A scalar, not negative; zero for a batch without exemplars.
    """
    own = similarities.gather(1, labels[:, None])
    nearest = similarities[:, old_classes:]
    nearest = nearest.topk(min(hardest, nearest.shape[1]), dim=1).values
    lacking = (margin - own + nearest).relu().mean(1)
    return (lacking * exemplars).sum() / exemplars.sum().clamp(min=1)


class MarginRankingOptions(Options):
    """Options of margin-ranking."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term")
    margin: float = Field(0.5, ge=0, le=1000, description="margin of the right class, in units of similarity")
    hardest: int = Field(2, ge=1, le=1000, description="how many of the nearest new classes count for an exemplar (K)")
    adaptive: Adaptive = Field("none", description=f"factor of the weight. {FORMS}. UCIR's numbers: none")


class MarginRanking:
    """Keep exemplars closer to their own class than to the nearest new classes, by a margin.

    It asks nothing of the old model, so two equal models have a term and a gradient.
    """

    needs = frozenset({"memory", "similarities"})

    def __init__(self, options: MarginRankingOptions) -> None:
        self.options = options

    @hookimpl
    def compute_penalty(self, step: Step, batch: Batch, new: Outputs) -> dict[str, Tensor]:
        """The term margin-ranking."""
        options, old_classes = self.options, len(step.old_classes)
        loss = margin_ranking(
            new.similarities(), batch.labels, batch.from_memory, old_classes, options.margin, options.hardest
        )
        return {"margin-ranking": options.weight * adaptive_factor(options.adaptive, step) * loss}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("margin-ranking", MarginRanking, MarginRankingOptions)
