"""den: retrains what a step needs, adds units where that is too little, splits what drifts (Yoon et al., ICLR 2018).

A step is up to four phases: its head alone under L1 (`main`), the units that the head's remaining weights lead back to,
held at their old values (`den.retrain`, Algorithm 2), new units under a group lasso where the loss is still above a
threshold (`den.expand`, Algorithm 3), copies of units that have moved too far (`den.split`, Algorithm 4). The authors'
released code has fully connected layers; what is ours for convolutions stands in the README.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from lwmfw import Backbone, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from lwmfw import Model, Phase, Step, StepResult
    from lwmfw_plugins.backbones.den._network import ExpandableNetwork
    from lwmfw_plugins.classifiers._heads import LinearHead, StepHeads


class DenOptions(Options):
    """Options of den."""

    layers: int = Field(3, ge=2, le=8, description="convolutions, with max-pooling between them")
    width: int = Field(
        16, ge=1, le=1024, description="units of the first layer in the first step; doubled by each layer"
    )
    l1: float = Field(
        1e-5,
        ge=0,
        le=1,
        description="mu of equations 2, 3 and 5: how much an update takes off the magnitude of a weight; the "
        "authors' code: 1e-5, with up to 4300 updates",
    )
    hold: float = Field(
        0.5,
        ge=0,
        le=1e6,
        description="lambda of equation 6, halved: pull towards the old values; the authors' code: 0.5",
    )
    threshold: float = Field(
        0.01,
        ge=0,
        le=1e6,
        description="tau of Algorithm 1: the mean loss of the last epoch of retraining above which units are added; "
        "the authors' code: 0.01",
    )
    expand: int = Field(
        10, ge=1, le=10_000, description="k of Algorithm 3: units added to a layer; the authors' code: 10"
    )
    group_lasso: float = Field(
        1e-3,
        ge=0,
        le=1000,
        description="gamma of equation 5: how much an update takes off the norm of a new unit's incoming weights; "
        "the authors' code: 1e-3",
    )
    drift: float = Field(
        0.05,
        ge=0,
        le=1e6,
        description="sigma of Algorithm 4: how far a unit may move in a step without being split; the authors' code: "
        "0.05",
    )
    epochs: int = Field(
        0, ge=0, le=100_000, description="epochs of each phase after the main one; 0: as many as the main one has"
    )


class Den:
    """A convolutional network that grows by as many units as a step needs (DEN, Yoon et al., ICLR 2018)."""

    needs = frozenset({"heads", "resize"})
    offers = frozenset({"pooled"})

    def __init__(self, options: DenOptions) -> None:
        self.options = options
        self.before: ExpandableNetwork
        self.phase, self.loss = "", 0.0
        self.told: dict[str, Any] = {}
        self.sparse: list[nn.Parameter] = []
        self.groups: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.held: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def build(self, channels: int) -> ExpandableNetwork:
        """The network of the first step, for images of so many channels."""
        from lwmfw_plugins.backbones.den._network import ExpandableNetwork

        return ExpandableNetwork(channels, [self.options.width * 2**layer for layer in range(self.options.layers)])

    @hookimpl
    def grow_model(self, step: Step, model: Model) -> None:
        """Begin a step, without units of its own."""
        if step.index > 1:
            network_of(model).add_step()

    @hookimpl
    def before_step(self, model: Model) -> None:
        """Remember the weights of the step before."""
        self.before, self.told = copy.deepcopy(network_of(model)), {}

    @hookimpl
    def plan_phases(self, step: Step, main: Phase, name: str) -> list[Phase] | None:
        """Retraining, and where they turn out to be needed, expansion and splitting."""
        if step.index == 1:
            return None
        after = replace(main, epochs=self.options.epochs or main.epochs)
        retrain, *others = (replace(after, name=f"{name}.{stage}") for stage in ("retrain", "expand", "split"))
        return [retrain, *(replace(phase, optional=True) for phase in others)]

    @hookimpl
    def group_parameters(self, step: Step, phase: Phase, model: Model, rng: Generator, name: str) -> None:
        """Change the network as the phase wants it, and say what of it learns: in the main phase, and in those of other
        components, the newest head alone."""
        network, head = network_of(model), newest_head(model)
        self.phase, self.sparse, self.groups, self.held = phase.name.removeprefix(name), [], [], []
        if step.index == 1:
            self.sparse = [*network.newest.weights, head.weight]
            return
        network.requires_grad_(False)
        match self.phase:
            case "main":
                self.sparse = [head.weight]
            case ".retrain":
                self._retrain(model)
            case ".expand":
                self._expand(model, rng)
            case ".split":
                self._split(model)

    def _retrain(self, model: Model) -> None:
        """Have what the head can be reached from learn; a connection that is zero stays zero (Algorithm 2)."""
        from lwmfw_plugins.backbones.den._changes import connected, reachable

        layers, head = network_of(model).layers(), newest_head(model)
        chosen = reachable([[weight for weight, _ in layer] for layer in layers], head.weight)
        for layer, units in zip(layers, chosen, strict=True):
            for (weight, bias), rows in zip(layer, units.split([len(bias) for _, bias in layer]), strict=True):
                self._train(weight, (connected(weight) & rows[:, None])[:, :, None, None])
                self._train(bias, rows)
        self._train(head.weight, head.weight != 0)
        self.told["selected"] = [int(units.sum()) for units in chosen]

    def _expand(self, model: Model, rng: Generator) -> None:
        """Where the loss is too large still, add units that learn alone (Algorithm 3)."""
        import torch

        self.told |= {"loss": self.loss, "expanded": self.loss > self.options.threshold}
        if not self.told["expanded"]:
            model.requires_grad_(False)
            return
        network, head, more = network_of(model), newest_head(model), self.options.expand
        network.expand(more, rng)
        # columns of zeros would leave the units below without a gradient, and the group lasso would remove them
        columns = (2 * torch.rand(len(head.weight), more, generator=rng) - 1) / head.weight.shape[1] ** 0.5
        head.weight = torch.nn.Parameter(torch.cat([head.weight.detach(), columns.to(head.weight)], 1))
        head.bias.requires_grad_(False)
        model.reshaped()
        new = torch.arange(head.weight.shape[1], device=model.device) >= head.weight.shape[1] - more
        self._train(head.weight, new[None])
        self.sparse = [*network.newest.weights, head.weight]
        self.groups = list(zip(network.newest.weights, network.newest.biases, strict=True))

    def _split(self, model: Model) -> None:
        """Remove new units that are zero. Give units that have moved too far their old weights back; copies of what
        they had become learn on in their place (Algorithm 4)."""
        import torch

        from lwmfw_plugins.backbones.den._changes import put_back, with_copies, without_dead

        network, head = network_of(model), newest_head(model)
        weights, biases = without_dead([*network.newest.weights, head.weight], [*network.newest.biases])
        copies = put_back(network, self.before, self.options.drift)
        self.told |= {"added": [len(bias) for bias in biases], "split": [len(units) for units, _, _ in copies]}
        (*weights, columns), biases = with_copies(weights, biases, copies)
        network.newest.take(weights, biases)
        head.weight = torch.nn.Parameter(columns)
        model.reshaped()
        if any(self.told["split"]):
            self._train(head.weight, columns != 0)
        else:
            model.requires_grad_(False)

    def _train(self, parameter: nn.Parameter, chosen: Tensor) -> None:
        """Have chosen values of a parameter learn in this phase; the others are put back after every update."""
        parameter.requires_grad_(bool(chosen.any()))
        self.held.append((parameter, chosen, parameter.detach().clone()))

    @hookimpl
    def compute_penalty(self, model: Model) -> dict[str, Tensor] | None:
        """Hold what is retrained at its old values (equation 6)."""
        from lwmfw_plugins.backbones.den._changes import distance

        if self.phase != ".retrain":
            return None
        return {"hold": self.options.hold / 2 * distance(network_of(model), self.before)}

    @hookimpl
    def after_update(self) -> None:
        """Shrink what is to be sparse, and put back what does not learn."""
        import torch

        from lwmfw_plugins.backbones.den._changes import shrink, shrink_units

        with torch.no_grad():
            for weight in self.sparse:
                shrink(weight, self.options.l1)
            for units in self.groups:
                shrink_units(*units, self.options.group_lasso)
            for parameter, chosen, value in self.held:
                parameter.copy_(parameter.where(chosen, value))

    @hookimpl
    def after_epoch(self, means: Mapping[str, float]) -> None:
        """Remember how large the loss is after retraining."""
        if self.phase == ".retrain":
            self.loss = next(iter(means.values()))  # the objective's term is the first

    @hookimpl
    def after_step(self, model: Model, result: StepResult, name: str) -> None:
        """Put into the results what the step has changed, and how many units each layer has."""
        result.extra[name] = self.told | {"units": network_of(model).widths}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: what the phases of a step tell one another, and its results."""
        return {"loss": self.loss, "told": self.told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.loss, self.told = state["loss"], dict(state["told"])


def network_of(model: Model) -> ExpandableNetwork:
    """The network of a model."""
    return cast("ExpandableNetwork", model.backbone)


def newest_head(model: Model) -> LinearHead:
    """The head of the newest step."""
    return cast("LinearHead", cast("StepHeads", model.classifier).heads[-1])


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("den", Den, DenOptions)
