"""cosine: the angle between features and a direction per class (UCIR, Hou et al., CVPR 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from lwmfw import Classifier, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from lwmfw import ImageSet, Model, Phase, Run, Step
    from lwmfw_plugins.classifiers._heads import CosineHead


class CosineOptions(Options):
    """Options of the cosine classifier."""

    scale: float = Field(1.0, gt=0, le=1000, description="initial value of the learned factor eta")
    imprint: bool = Field(False, description="new classes start at the mean of their features, from the second step on")
    freeze_old: bool = Field(False, description="directions of earlier steps' classes do not learn in the main phase")


class Cosine:
    """Cosine between the features and one direction per class, times a learned factor.

    UCIR is `imprint` and `freeze_old`. An imprinted direction is the mean of the class's normalised features under the
    model as the last step left it, made as long as old directions are on average. Frozen ones have neither learning
    rate nor weight decay in the main phase; other phases train them.
    """

    offers = frozenset({"similarities"})

    def __init__(self, options: CosineOptions) -> None:
        self.options = options

    def build(self, features: int) -> nn.Module:
        """A head without classes for so many features."""
        from lwmfw_plugins.classifiers._heads import CosineHead

        return CosineHead(features, self.options.scale)

    @hookimpl
    def before_step(self, run: Run, step: Step, model: Model, data: ImageSet) -> None:
        """Imprint the new classes."""
        from lwmfw import class_means

        if not self.options.imprint or step.index == 1:
            return
        images, head = data.of_classes(step.new_classes), cast("CosineHead", model.classifier)
        labels = images.labels - step.new_classes.start
        head.imprint(class_means(run.features(images), labels, len(step.new_classes)))

    @hookimpl
    def group_parameters(self, phase: Phase, model: Model) -> None:
        """Keep the old directions as they are."""
        if self.options.freeze_old and phase.main:
            cast("CosineHead", model.classifier).freeze_old()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Classifier("cosine", Cosine, CosineOptions)
