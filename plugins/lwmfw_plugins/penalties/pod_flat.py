"""POD-flat: distillation of the features (PODNet, Douillard et al., ECCV 2020, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins.penalties._adaptive import FORMS, Adaptive, adaptive_factor
from lwmfw_plugins.penalties.less_forget import cosine_distance

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Step


def squared_distance(new: Tensor, old: Tensor) -> Tensor:
    """Squared distance of the normalised features of each image, averaged over the batch.

    It is twice `cosine_distance`, which PODNet's code has in the place of the paper's formula: lambda_f differs.

    Args:
        new: (B, D), features of the model being trained.
        old: (B, D), features of its predecessor.

    Returns:
        A scalar in 0..4, zero for equal directions.
    """
    from torch.nn.functional import normalize

    return (normalize(new) - normalize(old)).square().sum(1).mean()


class PodFlatOptions(Options):
    """Options of POD-flat."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term (lambda_f); PODNet: CIFAR 1, ImageNet 10")
    form: Literal["cosine", "squared"] = Field(
        "cosine", description="cosine: 1 - cos, PODNet's code; squared: distance of unit vectors, its paper"
    )
    adaptive: Adaptive = Field("podnet", description=f"factor of the weight. {FORMS}. PODNet's numbers: podnet")


class PodFlat:
    """Keep the features, which have nothing left to pool, close to the old model's."""

    needs = frozenset({"old", "features"})

    def __init__(self, options: PodFlatOptions) -> None:
        self.options = options

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term POD-flat."""
        distance = cosine_distance if self.options.form == "cosine" else squared_distance
        weight = self.options.weight * adaptive_factor(self.options.adaptive, step)
        return {"POD-flat": weight * distance(new.features, old.features)}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("POD-flat", PodFlat, PodFlatOptions)
