"""der: a new branch of the network for every step, beside the frozen ones (DER, Yan et al., CVPR 2021).

Features are those of all branches, u = [F_1(x), ..., F_t(x)] (equation 1), and the classifier is trained on them with
cross-entropy over all seen classes. From the second step on an auxiliary classifier sees the new branch alone and tells
the new classes apart, every old one being "old" (equation 4); it is gone when the main phase ends. With `prune` masks
on channels are learned beside the weights (equations 6 to 11), and what they leave out is cut out at that moment.

The authors' released code has neither masks nor cutting; of these the paper alone was the source. README.md says what
is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import model_validator

from lwmfw import Backbone, Component, Field, Options, hookimpl
from lwmfw_plugins._extras import linear_head, place

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from lwmfw import Batch, ImageSet, Model, Outputs, Phase, Run, Step
    from lwmfw_plugins.backbones.der._masks import Gate, GatedResNet
    from lwmfw_plugins.backbones.der._network import DerNetwork


def auxiliary_labels(labels: Tensor, first: int) -> Tensor:
    """Every old class becomes 0, "old", new ones 1, 2, ...

    Args:
        labels: (B,), int64, positions in the class order.
        first: the first new class.

    Returns:
        (B,), int64.
    """
    return (labels - (first - 1)).clamp(min=0)


def sharpness_at(batch: int, batches: int, greatest: float) -> float:
    """s, which rises from 1/s_max to s_max within each epoch (equation 8).

    Args:
        batch: b, from 1; behind the last it stays at s_max.
        batches: B, of an epoch.
        greatest: s_max.
    """
    share = min(1.0, (batch - 1) / max(batches - 1, 1))
    return 1 / greatest + (greatest - 1 / greatest) * share


class DerOptions(Options):
    """Options of der."""

    blocks: int = Field(3, ge=1, le=100, description="blocks per stage of a branch: 3 is resnet20, 5 is resnet32")
    width: int = Field(16, ge=1, le=1024, description="channels of a branch's first stage")
    begin: Literal["previous", "fresh"] = Field(
        "previous",
        description="how a new branch starts: as a copy of the previous one, as in the authors' code, or freshly "
        "initialised; always fresh with prune",
    )
    auxiliary: float = Field(
        1.0, ge=0, le=1e6, description="factor of the auxiliary loss (lambda_a, equation 5); 1 in the authors' code"
    )
    prune: bool = Field(False, description="whether channels are masked and pruned (section 3.3)")
    sparsity: float = Field(
        1.0, ge=0, le=1e6, description="factor of the sparsity loss (lambda_s, equation 11); the authors tune it"
    )
    sharpness: float = Field(100.0, gt=1, le=1e6, description="greatest sharpness of masks (s_max, equation 8)")

    @model_validator(mode="before")
    @classmethod
    def _fresh_where_branches_are_cut(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("prune") is True:
            if given.get("begin") == "previous":
                raise ValueError("a branch cannot begin as one that was cut; set begin = 'fresh', or prune = false")
            return {"begin": "fresh"} | given
        return given


class Der:
    """A residual network for small images that adds a branch at every step and freezes the old ones (DER)."""

    needs = frozenset({"memory", "rows", "resize"})
    offers = frozenset({"pooled"})
    acts_first = True

    def __init__(self, options: DerOptions) -> None:
        self.options = options
        self.batch, self.batches = 1, 1  # of the epoch; where the sharpness of masks stands
        self.gates: list[Gate] = []  # those that are trained

    def build(self, channels: int) -> DerNetwork:
        """The network of the first step for images of so many channels."""
        from lwmfw_plugins.backbones.der._network import DerNetwork

        return DerNetwork(channels, self.options.blocks, self.options.width, gated=self.options.prune)

    @hookimpl
    def grow_model(self, step: Step, model: Model) -> None:
        """From the second step on a new branch."""
        if step.index > 1:
            cast("DerNetwork", model.backbone).grow(fresh=self.options.begin == "fresh")

    @hookimpl
    def before_step(self, run: Run, step: Step, data: ImageSet) -> None:
        """Count the batches of an epoch."""
        self.batches = math.ceil(len(data) / run.phases(step)[0].batch_size)

    @hookimpl
    def group_parameters(
        self, step: Step, phase: Phase, model: Model, name: str, rng: Generator
    ) -> list[dict[str, Any]] | None:
        """The main phase begins: make the auxiliary classifier, and keep weight decay off the scores."""
        if not phase.main:
            return None
        newest = cast("DerNetwork", model.backbone).newest
        if step.index > 1 and self.options.auxiliary:
            *_, last = newest.blocks()
            head = linear_head(last.channels, len(step.new_classes) + 1, rng)
            model.extras[place(name)] = head.to(model.device)
        if not self.options.prune:
            return None
        self.gates = cast("GatedResNet", newest).gates()
        self._sharpen(batch=1)
        return [{"params": [gate.scores for gate in self.gates], "weight_decay": 0.0}]

    @hookimpl
    def compute_penalty(
        self, step: Step, batch: Batch, new: Outputs, model: Model, name: str
    ) -> dict[str, Tensor] | None:
        """The terms auxiliary, from the second step on, and sparsity; in the main phase alone."""
        from torch.nn.functional import cross_entropy

        terms, newest = {}, cast("DerNetwork", model.backbone).newest
        if place(name) in model.extras:
            head = cast("nn.Linear", model.extras[place(name)])
            logits = head(new.features[:, -head.in_features :])
            labels = auxiliary_labels(batch.labels, step.new_classes.start)
            terms["auxiliary"] = self.options.auxiliary * cross_entropy(logits, labels)
        if self.options.prune and not cast("GatedResNet", newest).gates()[0].closed:
            terms["sparsity"] = self.options.sparsity * cast("GatedResNet", newest).sparsity()
        return terms or None

    @hookimpl
    def after_update(self, model: Model) -> None:
        """Masks become sharper."""
        if self.options.prune:
            self._sharpen(self.batch + 1)

    @hookimpl
    def after_epoch(self, run: Run, step: Step, epoch: int, name: str) -> None:
        """Masks become smooth again; with the main phase the auxiliary classifier ends, and channels are cut out."""
        main = run.phases(step)[0]
        if run.position.phase != main.name:
            return
        if epoch < main.epochs:
            if self.options.prune:
                self._sharpen(batch=1)
            return
        if place(name) in run.model.extras:
            del run.model.extras[place(name)]
        self.gates, self.batch = [], 1
        if self.options.prune:
            cut_out(run.model)

    def _sharpen(self, batch: int) -> None:
        self.batch = batch
        sharpness = sharpness_at(batch, self.batches, self.options.sharpness)
        for gate in self.gates:
            gate.sharpness = sharpness

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: how sharp masks are."""
        return {"batch": self.batch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self._sharpen(state["batch"])


def cut_out(model: Model) -> None:
    """Cut the newest branch; the classifier keeps the columns of the features that stay."""
    import torch

    branch, weight = (
        cast("GatedResNet", cast("DerNetwork", model.backbone).newest),
        cast("Tensor", model.classifier.weight),
    )
    *_, last = branch.blocks()
    first = weight.shape[1] - last.channels
    kept = first + branch.cut_out()
    with torch.no_grad():
        weight[:, first : first + len(kept)] = weight[:, kept]
    model.reshaped()


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Backbone("der", Der, DerOptions)
