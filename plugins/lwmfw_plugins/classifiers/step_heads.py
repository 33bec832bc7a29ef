"""step-heads: a linear head per step, over the features there were when it came; old heads learn no more.

The classifier of networks that grow and leave what they had alone (PNN, Rusu et al. 2016; DEN, Yoon et al., ICLR 2018).
Heads of different steps are trained apart, so that their logits are comparable within a step and hardly beyond it: such
methods were published with the identity of the step given (accuracy_task_aware).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Classifier, Component, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from lwmfw import Model


class StepHeads:
    """A weight vector and a bias per class, on the features of its own step and of earlier ones."""

    offers = frozenset({"heads", "resize"})

    def __init__(self, options: Options) -> None:
        pass

    def build(self, features: int) -> nn.Module:
        """A head without classes for so many features."""
        from lwmfw_plugins.classifiers import _heads

        return _heads.StepHeads(features)

    @hookimpl
    def before_step(self, model: Model) -> None:
        """Let the newest head alone learn."""
        model.classifier.freeze_old()  # type: ignore[operator]


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Classifier("step-heads", StepHeads)
