"""Keep the angles between feature vectors as the old model had them."""

from torch.nn.functional import normalize
from lwmfw import Field, Options, Penalty, hookimpl


class AnglesOptions(Options):
    weight: float = Field(1.0, ge=0, description="factor of the term")


class Angles:
    """Keeps the angles between the images of a batch."""

    needs = {"old", "features"}

    def __init__(self, options: AnglesOptions):
        self.weight = options.weight

    @hookimpl
    def compute_penalty(self, new, old):
        a, b = normalize(new.features), normalize(old.features)
        return {"angles": self.weight * (a @ a.T - b @ b.T).square().mean()}


@hookimpl
def register_components():
    yield Penalty("angles", Angles, AnglesOptions)
