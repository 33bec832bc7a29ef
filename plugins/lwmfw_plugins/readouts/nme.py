"""nme: the class whose exemplars' mean feature is nearest decides (iCaRL, Rebuffi et al., CVPR 2017, algorithm 1).

Exemplars are taken as the memory holds them after the step, encoded and decoded, and mirrored ones besides where
training mirrors images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Options, Readout, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Run


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """How close normalised features are to class means of length 1: their cosine, which orders as the distance does.

    Args:
        features: (B, D).
        means: (classes, D); zero for a class without images.

    Returns:
        (B, classes); minus infinity for a class without images.
    """
    import torch
    from torch.nn.functional import normalize

    absent = (means == 0).all(1)
    return (normalize(features) @ means.T).masked_fill(absent, -torch.inf)


class NearestMeanOfExemplars:
    """The class whose exemplars' mean feature is nearest."""

    needs = frozenset({"memory"})
    spares_first_step = True

    def __init__(self, options: Options) -> None:
        self.run: Run | None = None
        self.means: Tensor | None = None

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Know the run, whose exemplars they are."""
        self.run = run

    @hookimpl
    def after_training(self) -> None:
        """Forget the means of the step before: exemplars are stored next, and the means are theirs."""
        self.means = None

    def scores(self, features: Tensor) -> Tensor:
        """Cosines to the class means, (B, seen)."""
        if self.means is None:
            self.means = self._class_means()
        return nearest_mean_scores(features, self.means)

    def _class_means(self) -> Tensor:
        import torch

        from lwmfw import class_means

        run = self.run
        assert run is not None, "asked in a run"  # noqa: S101
        assert run.memory is not None, "a need"  # noqa: S101
        exemplars = run.memory.images()
        views = [run.features(exemplars)] + ([run.features(exemplars, mirrored=True)] if run.loader.flip else [])
        return class_means(torch.cat(views), exemplars.labels.repeat(len(views)), run.model.classes)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("nme", NearestMeanOfExemplars)
