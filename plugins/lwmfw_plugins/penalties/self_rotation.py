"""self-rotation: the first step also learns how an image is turned (label augmentation of PASS, Zhu et al., CVPR 2021).

Telling an image's class and turn apart asks more of the features than its class alone, and what later steps can no
longer learn is in them: methods that hold or freeze the backbone begin better. PASS does it in every step, with the
classifier itself on four times the classes, at a temperature of 0.1, and decides by every fourth row. Here it ends with
the first step, as in EFC and what came after; the classifier keeps its own loss, and turns have a head of their own.

Turned images go through the model as a batch of their own, which BatchNorm normalises apart from the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Penalty, hookimpl
from lwmfw_plugins._extras import linear_head, place

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import Batch, Model, Outputs, Run, Step

TURNS = 4


def turned(images: Tensor) -> Tensor:
    """Images turned by 90, by 180 and by 270 degrees, one turn after another.

    Args:
        images: (B, C, H, H).

    Returns:
        (3 B, C, H, H).
    """
    import torch

    return torch.cat([images.rot90(turn, (2, 3)) for turn in range(1, TURNS)])


def turned_labels(labels: Tensor) -> Tensor:
    """4 class + turn of a batch as it is and then `turned`: (B,), int64 -> (4 B,), int64."""
    import torch

    return torch.cat([TURNS * labels + turn for turn in range(TURNS)])


class SelfRotationOptions(Options):
    """Options of self-rotation."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term")


class SelfRotation:
    """In the first step, also learn to tell class and rotation of each image in four rotations, with a separate head.

    The head stays among the model's extras after the step, where it learns no more and nothing asks it.
    """

    needs = frozenset({"features"})
    acts_first = True

    def __init__(self, options: SelfRotationOptions) -> None:
        self.options = options

    @hookimpl
    def before_run(self, run: Run, name: str, rng: Generator) -> None:
        """Make the head for the classes of the first step."""
        run.model.extras[place(name)] = linear_head(run.model.width, TURNS * len(run.steps[0].new_classes), rng)

    @hookimpl
    def before_step(self, step: Step, model: Model, name: str) -> None:
        """Take the head out of training once it has served."""
        model.extras[place(name)].requires_grad_(step.index == 1)

    @hookimpl
    def compute_penalty(
        self, step: Step, batch: Batch, new: Outputs, model: Model, name: str
    ) -> dict[str, Tensor] | None:
        """The term self-rotation, in the first step alone."""
        import torch
        from torch.nn.functional import cross_entropy

        if step.index > 1:
            return None
        features = torch.cat([new.features, model(turned(batch.images)).features])
        logits = model.extras[place(name)](features)
        return {"self-rotation": self.options.weight * cross_entropy(logits, turned_labels(batch.labels))}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("self-rotation", SelfRotation, SelfRotationOptions)
