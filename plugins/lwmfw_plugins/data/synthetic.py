"""synthetic: images made on the spot, for tests and for trying a recipe's wiring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Data, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import DataSet, Images


class SyntheticOptions(Options):
    """Options of synthetic."""

    classes: int = Field(4, ge=1, le=10_000, description="number of classes")
    train_per_class: int = Field(32, ge=1, le=100_000, description="training images of each class")
    test_per_class: int = Field(16, ge=1, le=100_000, description="test images of each class")
    size: int = Field(8, ge=4, le=512, description="height and width")
    channels: int = Field(3, ge=1, le=16, description="colour channels")
    noise: float = Field(0.2, ge=0, le=10, description="standard deviation of the noise; a class's pattern spans 0..1")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of patterns and noise, independent of the recipe's seed")


class Synthetic:
    """A blurred random pattern for each class, with noise added."""

    def __init__(self, options: SyntheticOptions) -> None:
        self.options = options
        self.class_count = options.classes
        self.class_names = [f"pattern {c}" for c in range(options.classes)]

    def load(self) -> DataSet:
        """Make the images."""
        import torch
        from torch.nn.functional import interpolate

        from lwmfw import DataSet

        o = self.options
        rng = torch.Generator().manual_seed(o.seed)
        coarse = torch.rand(o.classes, o.channels, 4, 4, generator=rng)
        patterns = interpolate(coarse, (o.size, o.size), mode="bilinear", align_corners=False)
        train, test = (self._noisy(patterns, count, rng) for count in (o.train_per_class, o.test_per_class))
        return DataSet(train, test, self.class_names, [0.5] * o.channels, [0.3] * o.channels, padding=1, flip=False)

    def _noisy(self, patterns: Tensor, count: int, rng: Generator) -> Images:
        import torch

        from lwmfw import Images

        labels = torch.arange(len(patterns)).repeat_interleave(count)
        images = patterns[labels]
        images = images + self.options.noise * torch.randn(images.shape, generator=rng)
        return Images(images.clamp(0, 1).mul(255).round().to(torch.uint8), labels)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Data("synthetic", Synthetic, SyntheticOptions)
