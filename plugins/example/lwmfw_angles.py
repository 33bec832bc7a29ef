"""Keep the angles between feature vectors as the old model had them."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import normalize

from lwmfw import Component, Field, Options, Outputs, Penalty, hookimpl


def angle_difference(new: Tensor, old: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all pairs of feature vectors of a batch.

    Args:
        new: (B, D), features of the model being trained.
        old: (B, D), features of its predecessor.

    Returns:
        A scalar, zero where all angles are equal.
    """
    a, b = normalize(new), normalize(old)
    return (a @ a.T - b @ b.T).square().mean()


class AngleOptions(Options):
    """Options of angles."""

    weight: float = Field(1.0, ge=0, description="factor of the term")


class Angles:
    """Keep the angles between the images of a batch as the old model sees them."""

    needs = frozenset({"old", "features"})

    def __init__(self, options: AngleOptions) -> None:
        self.weight = options.weight

    @hookimpl
    def compute_penalty(self, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term angles."""
        return {"angles": self.weight * angle_difference(new.features, old.features)}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("angles", Angles, AngleOptions)
