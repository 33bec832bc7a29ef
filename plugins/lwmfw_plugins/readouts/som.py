"""som: a linear answer read off a self-organising map decides (Gepperth & Karaoguz, Cognitive Computation 2016).

Features, brought to length 1, are laid out on a grid of side x side prototypes w. Of a feature x the map's activity is
z_j ~ exp(-|x - w_j|^2 / 2 k^2), and the scores are V z. An image that is answered wrongly or without certainty is
novel, and it alone changes anything, where the map answers to it:

    w_j <- w_j + e h_j (x - w_j)    h_j = exp(-g_j^2 / 2 r^2), g_j the distance on the grid to the nearest prototype
    V   <- V + d (t - V z) z^T      t one-hot

The first step lays the map out: e and r fall to the small values that hold from then on, and k is measured. Later steps
change it near the winners alone, so that what lies far from the new images is left as it was. As in the paper: the
three layers, the update near the winner, e and r that fall and then hold, and learning that novelty sets off. Choices
of ours, as the paper's constants were not at hand: all values, features of length 1, activities of the sum 1 in the
place of the paper's transfer function, both updates put for batches (_som.py), h cut off at three radii, and the order:
the map is laid out before answers are learned, where the paper begins both at once. Its short-term memory, which is
replayed, is left out; with [memory], exemplars are among a step's images and are learned from again.

Prototypes are features as the backbone gave them: they hold while it is frozen, and are not carried over if it moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import Component, Field, Options, Readout, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import ImageSet, Run, Step

BATCH = 100
"""Images that are looked at together; a batch moves the map nearly as they would one by one."""


class SomOptions(Options):
    """Options of som; the values are ours, but for what falls and what holds, which is the paper's."""

    side: int = Field(30, ge=2, le=200, description="prototypes along each edge of the map")
    epochs: int = Field(
        5, ge=1, le=1000, description="passes over a step's images; the first step lays the map out in as many"
    )
    rate: float = Field(0.5, gt=0, le=1, description="learning rate of the map (e) when it is first laid out")
    radius: float = Field(
        10.0, gt=0, le=200, description="radius of the neighbourhood (r) on the grid when the map is first laid out"
    )
    later_rate: float = Field(0.05, gt=0, le=1, description="value to which the rate falls, and where it stays")
    later_radius: float = Field(0.5, gt=0, le=200, description="value to which the radius falls, and where it stays")
    answer_rate: float = Field(0.01, gt=0, le=1, description="learning rate of the linear answer (d)")
    margin: float = Field(
        0.5,
        ge=0,
        le=1,
        description="margin of the right class over the others, and over 0, below which an image is novel; 0: novel "
        "is what is answered wrongly",
    )
    width: float = Field(
        0.35,
        gt=0,
        le=100,
        description="width of the activity (k), in units of the root mean square distance from images to "
        "their nearest prototype",
    )


class SelfOrganisingMap:
    """A self-organising map that learns from novel images, with a linear layer on its activity."""

    needs = frozenset({"features"})
    spares_first_step = True

    def __init__(self, options: SomOptions) -> None:
        self.options = options
        self.prototypes: Tensor | None = None  # (side^2, D)
        self.weights: Tensor | None = None  # (seen, side^2)
        self.facts: dict[str, float] = {}

    @hookimpl
    def after_training(self, run: Run, step: Step, data: ImageSet, rng: Generator) -> None:
        """Lay the map out with the first images there are, then learn where they are novel."""
        from torch.nn.functional import normalize, pad

        from lwmfw_plugins.readouts._som import grid

        features = normalize(run.features(data))
        labels = data.labels.to(features.device)
        places = grid(self.options.side).to(features)
        if self.prototypes is None or self.weights is None:
            self.prototypes = self._laid_out(features, places, rng)
            self.weights = features.new_zeros(0, len(places))
        self.prototypes = self.prototypes.to(features)
        more = len(step.seen_classes) - len(self.weights)
        self.weights = pad(self.weights.to(features), (0, 0, 0, more))
        self._learn(features, labels, places, rng)

    def _laid_out(self, features: Tensor, places: Tensor, rng: Generator) -> Tensor:
        """Prototypes that begin as drawn images and end in order: neighbours on the grid are alike."""
        import torch

        from lwmfw_plugins.readouts._som import adapted, distances, parts

        said = self.options
        begin = torch.randint(len(features), (len(places),), generator=rng).to(features.device)
        prototypes, every = features[begin], features.new_ones(len(features), dtype=torch.bool)
        batches = list(self._batches(features, rng))
        for number, chosen in enumerate(batches):
            done = number / len(batches)
            rate, radius = _fallen(said.rate, said.later_rate, done), _fallen(said.radius, said.later_radius, done)
            prototypes = adapted(prototypes, features[chosen], places, rate, radius, every[chosen])
        nearest = torch.cat([distances(part, prototypes).amin(1) for part in parts(features, prototypes)])
        self.facts["width"] = max(said.width * float(nearest.mean().sqrt()), 1e-6)  # where every image is a prototype
        return prototypes

    def _learn(self, features: Tensor, labels: Tensor, places: Tensor, rng: Generator) -> None:
        """Let novel images change the map and the answers; keeps what share of all images seen was novel."""
        from lwmfw_plugins.readouts._som import activity, adapted, answered, novel

        assert self.prototypes is not None, "laid out"  # noqa: S101
        assert self.weights is not None, "laid out"  # noqa: S101
        said, width, found = self.options, self.facts["width"], features.new_zeros(())
        for chosen in self._batches(features, rng):
            x, own = features[chosen], labels[chosen]
            active = activity(x, self.prototypes, width)
            new = novel(active @ self.weights.T, own, said.margin)
            self.weights = answered(self.weights, active, own, said.answer_rate, new)
            self.prototypes = adapted(self.prototypes, x, places, said.later_rate, said.later_radius, new)
            found += new.sum()
        self.facts["novel"] = float(found) / (said.epochs * len(features))

    def _batches(self, features: Tensor, rng: Generator) -> Iterator[Tensor]:
        """Rows of features, every pass in an order of its own."""
        import torch

        for _ in range(self.options.epochs):
            yield from torch.randperm(len(features), generator=rng).to(features.device).split(BATCH)

    def scores(self, features: Tensor) -> Tensor:
        """The linear answers to the map's activity, (B, seen): near 1 for the own class and near 0 for others."""
        import torch
        from torch.nn.functional import normalize

        from lwmfw_plugins.readouts._som import activity, parts

        assert self.prototypes is not None, "asked after training"  # noqa: S101
        assert self.weights is not None, "asked after training"  # noqa: S101
        prototypes, answers = self.prototypes.to(features), self.weights.to(features).T
        active = (activity(part, prototypes, self.facts["width"]) for part in parts(normalize(features), prototypes))
        return torch.cat([part @ answers for part in active])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: prototypes, weights, the activity's width, and the share that was novel last."""
        if self.prototypes is None or self.weights is None:
            return {}
        return {"prototypes": self.prototypes.cpu(), "weights": self.weights.cpu()} | self.facts

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.prototypes, self.weights = state.get("prototypes"), state.get("weights")
        self.facts = {name: state[name] for name in ("width", "novel") if name in state}


def _fallen(begin: float, end: float, done: float) -> float:
    """What has fallen from `begin` to `end` by equal factors, at a share of the way."""
    return float(begin * (end / begin) ** done)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Readout("som", SelfOrganisingMap, SomOptions)
