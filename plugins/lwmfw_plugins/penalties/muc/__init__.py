"""muc: distillation by several classifiers of each step (multi-classifier paradigm, Liu et al., ECCV 2020).

When a step has been trained, K side classifiers over its classes are fitted to the features as they are. They have to
agree on the step's images and to differ on images of another data set, so that together they say more of where an old
class ends than the classifier alone. In the next step all of them are distilled: the paper's MUC-LwF, with its loss

    (1 - a) CE + a (KD_main + mean over K of KD_side),   a = t / (t + 1) after t steps.

An objective's weight does not change with the steps, so we divide by 1 - a, CE + t (KD_main + mean over K of KD_side):
that has the same minimum, and a gradient t + 1 times as long. As in the published code the side classifiers are of the
step before alone; a copy of them learns with the network while it is distilled, and is then dropped.

The README beside this file says what is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lwmfw import Component, DataChoice, Field, Options, Penalty, hookimpl
from lwmfw_plugins._extras import place
from lwmfw_plugins.penalties.l_d import softmax_distillation

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw import Images, ImageSet, Model, Outputs, Run, Step
    from lwmfw_plugins.penalties.muc._side import SideHeads


def side_distillation(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """The mean over side classifiers of cross-entropy between softmaxes at a temperature, batch mean.

    Args:
        new: (B, K, N), logits of the side classifiers that learn with the model.
        old: (B, K, N), of those that its predecessor had.
        temperature: above 0; higher is softer.

    Returns:
        A scalar. Its gradient is zero where the logits are equal.
    """
    return softmax_distillation(new.flatten(0, 1), old.flatten(0, 1), temperature)


class MucOptions(Options):
    """Options of muc."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term, besides the number of earlier steps")
    temperature: float = Field(
        2.0, gt=0, le=1000, description="temperature of the softmaxes; the published code's is 2"
    )
    side: int = Field(3, ge=1, le=100, description="side classifiers per step (K); the published code has 3")
    other: DataChoice = Field(
        DataChoice(use="synthetic", classes=100),
        description="a data set that shares no class with this one, named as in [data], on whose training images the "
        "side classifiers are to differ; the paper's is SVHN",
    )
    other_images: int = Field(10_000, ge=1, le=1_000_000, description="most of its images that are used")
    discrepancy: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="factor of how much the side classifiers differ on them; the published code's is 1",
    )
    side_epochs: int = Field(
        80, ge=1, le=10_000, description="epochs for which they are trained; the published code has 80"
    )
    side_lr: float = Field(
        0.1,
        gt=0,
        le=10,
        description="learning rate of the side classifiers, divided by 10 at 4/8, 6/8 and 7/8; the "
        "published code's is 0.1",
    )


class Muc:
    """Distil the classifier and several side classifiers that are fitted after each step (MUC-LwF).

    A run that goes on from one without side classifiers distils the classifier alone in its first step.
    """

    needs = frozenset({"old", "features"})
    least_classes = least_new = 2  # a softmax over one class is 1, a side classifier's as well
    spares_first_step = True

    def __init__(self, options: MucOptions) -> None:
        self.options = options
        self.other: Images | None = None
        self.heads: SideHeads | None = None

    @hookimpl
    def before_run(self, run: Run, rng: Generator) -> None:
        """Load the other images, and bring them into the form of the run's."""
        from lwmfw import Images
        from lwmfw_plugins.penalties.muc._side import in_form, some_of

        images, train = some_of(run.load_data(self.options.other).train, self.options.other_images, rng), run.data.train
        self.other = Images(in_form(images.pixels, train.channels, train.size), images.labels).to(run.device)

    @hookimpl
    def before_step(self, run: Run, model: Model, name: str) -> None:
        """Have a copy of the last step's side classifiers learn with the model."""
        from copy import deepcopy

        if self.heads is not None:
            self.heads = self.heads.to(run.device)
            model.extras[place(name)] = deepcopy(self.heads).requires_grad_()

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs, model: Model, name: str) -> dict[str, Tensor]:
        """The term muc."""
        ours, theirs = (outputs.logits[:, : len(step.old_classes)] for outputs in (new, old))
        loss = softmax_distillation(ours, theirs, self.options.temperature)
        if self.heads is not None:
            side, known = model.extras[place(name)](new.features), self.heads(old.features)
            loss = loss + side_distillation(side, known, self.options.temperature)
        return {"muc": self.options.weight * (step.index - 1) * loss}

    @hookimpl
    def after_training(self, run: Run, step: Step, model: Model, data: ImageSet, name: str, rng: Generator) -> None:
        """Fit side classifiers to the step's new images; those of the step before have served."""
        from lwmfw_plugins.penalties.muc._side import SideHeads, fit

        assert self.other is not None, "loaded before the run"  # noqa: S101
        if self.heads is not None:
            del model.extras[place(name)]
        o, first = self.options, step.new_classes.start
        new = data.labels >= first
        features, labels = run.features(data)[new], data.labels[new] - first
        heads = SideHeads.drawn(o.side, len(step.new_classes), features.shape[1], rng).to(run.device)
        other = run.features(self.other)
        fit(heads, features, labels, other, epochs=o.side_epochs, lr=o.side_lr, weight=o.discrepancy, rng=rng)
        self.heads = heads.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the side classifiers of the last step."""
        return {} if self.heads is None else dict(self.heads.state_dict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        from lwmfw_plugins.penalties.muc._side import SideHeads

        self.heads = SideHeads(state["weight"], state["bias"]).requires_grad_(False) if state else None


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this folder."""
    yield Penalty("muc", Muc, MucOptions)
