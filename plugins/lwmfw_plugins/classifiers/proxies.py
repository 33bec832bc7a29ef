"""proxies: several directions per class (PODNet's Local Similarity Classifier, Douillard et al., ECCV 2020, 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

from lwmfw import Classifier, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Generator, nn

    from lwmfw import ImageSet, Model, Phase, Run, Step
    from lwmfw_plugins.classifiers._heads import ProxyHead


class ProxiesOptions(Options):
    """Options of the proxies classifier."""

    proxies: int = Field(10, ge=1, le=1000, description="directions per class (K in PODNet)")
    scaling: float = Field(
        1.0, gt=0, le=1000, description="length of normalised features and proxies; PODNet evaluated by NME: 3"
    )
    gamma: float = Field(1.0, ge=0, le=1000, description="sharpness of the softmax that merges a class's proxies")
    scale: float = Field(1.0, gt=0, le=1000, description="the factor eta of the logits, or its initial value")
    learned_scale: bool = Field(True, description="whether eta learns; PODNet evaluated by NME: false")
    imprint: Literal["k-means", "none"] = Field(
        "k-means", description="where new proxies start from the second step on: centres of the class, or at random"
    )
    freeze_old: bool = Field(True, description="proxies of earlier steps' classes do not learn in the main phase")


class Proxies:
    """Similarity of the features to several proxies per class, the nearest counting most, times a factor.

    Logits are eta times the merged similarity. In the first step proxies start at random. With `imprint` later ones
    start at the k-means centres of the class's normalised features under the model as the last step left it, times the
    mean length of the old proxies. With `freeze_old` old proxies have neither learning rate nor weight decay in the
    main phase; other phases train them, as published.
    """

    offers = frozenset({"similarities"})

    def __init__(self, options: ProxiesOptions) -> None:
        self.options = options

    def build(self, features: int) -> nn.Module:
        """A head without classes for so many features."""
        from lwmfw_plugins.classifiers._heads import ProxyHead

        return ProxyHead(features, **self.options.model_dump(exclude={"imprint", "freeze_old"}))

    @hookimpl
    def before_step(self, run: Run, step: Step, model: Model, data: ImageSet, rng: Generator) -> None:
        """Imprint the new classes."""
        import torch
        from torch.nn.functional import normalize

        from lwmfw_plugins.classifiers._kmeans import k_means

        if self.options.imprint == "none" or step.index == 1:
            return
        head = cast("ProxyHead", model.classifier)
        images = data.of_classes(step.new_classes)
        features = normalize(run.features(images)).cpu()
        counts = torch.bincount(images.labels - step.new_classes.start, minlength=len(step.new_classes)).tolist()
        centres = [k_means(own, self.options.proxies, rng) for own in features.split(counts)]
        head.imprint(torch.stack(centres).to(images.labels.device))

    @hookimpl
    def group_parameters(self, phase: Phase, model: Model) -> None:
        """Keep the old proxies as they are."""
        if self.options.freeze_old and phase.main:
            cast("ProxyHead", model.classifier).freeze_old()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Classifier("proxies", Proxies, ProxiesOptions)
