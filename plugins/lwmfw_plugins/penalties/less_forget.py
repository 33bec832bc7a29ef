"""less-forget: the direction of features is kept (UCIR, Hou et al., CVPR 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins.penalties._adaptive import FORMS, Adaptive, adaptive_factor

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Step


def cosine_distance(new: Tensor, old: Tensor) -> Tensor:
    """1 - cos of the features of each image, averaged over the batch.

    Args:
        new: (B, D), features of the model being trained.
        old: (B, D), features of its predecessor.

    Returns:
        A scalar in 0..2, zero for equal directions; lengths do not count.
    """
    from torch.nn.functional import cosine_similarity

    return 1 - cosine_similarity(new, old).mean()


class LessForgetOptions(Options):
    """Options of less-forget."""

    weight: float = Field(
        5.0, ge=0, le=1e6, description="factor of the term (lambda_base in UCIR); CIFAR 5, ImageNet 10"
    )
    adaptive: Adaptive = Field("ucir", description=f"factor of the weight. {FORMS}. UCIR's numbers: ucir")


class LessForget:
    """Keep the direction of each image's features close to the old model's."""

    needs = frozenset({"old", "features"})

    def __init__(self, options: LessForgetOptions) -> None:
        self.options = options

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term less-forget."""
        weight = self.options.weight * adaptive_factor(self.options.adaptive, step)
        return {"less-forget": weight * cosine_distance(new.features, old.features)}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("less-forget", LessForget, LessForgetOptions)
