"""Focal loss (Lin et al., ICCV 2017): what is easy counts less."""

from torch.nn.functional import cross_entropy
from lwmfw import Field, Objective, ObjectiveOptions, hookimpl


class FocalOptions(ObjectiveOptions):
    gamma: float = Field(2.0, ge=1, le=10, description="how much less")


class Focal:
    """Cross-entropy, times (1 - p) to the power of gamma."""

    def __init__(self, options: FocalOptions):
        self.gamma = options.gamma

    def loss(self, logits, labels):
        losses = cross_entropy(logits, labels, reduction="none")
        return ((1 - (-losses).exp()) ** self.gamma * losses).mean()


@hookimpl
def register_components():
    yield Objective("focal", Focal, FocalOptions)
