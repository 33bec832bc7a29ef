"""A stretch of training inside a step."""

from __future__ import annotations

from dataclasses import dataclass

MAIN = "main"
"""The phase that every step begins with."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training inside a step: the keys of [training], and what a phase of a component's own can change.

    Attributes:
        balanced: whether it shows as many images of new classes as the memory will keep, beside the exemplars.
        penalties: whether the penalties' terms are part of its loss.
        temperature: above 0, what logits are divided by before the classification loss.
        optional: whether it is passed over, rather than refused, where nothing of the model requires a gradient.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    milestones: list[float]
    gamma: float
    batchnorm: str
    balanced: bool = False
    penalties: bool = True
    temperature: float = 1.0
    optional: bool = False

    @property
    def main(self) -> bool:
        """Whether it is the phase that [training] describes, and not one that follows it."""
        return self.name == MAIN
