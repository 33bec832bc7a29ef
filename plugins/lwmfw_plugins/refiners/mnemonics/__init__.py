"""mnemonics: exemplars that are trained like parameters (Liu et al., CVPR 2020).

Equation 9 adjusts the exemplars of new classes: a temporary model, which starts as the trained one, takes some steps on
them, and its loss on the new training data is differentiated into their pixels. Equations 10a and 10b adjust the older
exemplars in two halves, the other half in the place of the data that is gone. That is the rule "unrolled".

The temporary model has its BatchNorm folded into the convolutions: its statistics stay those of the trained model, and
a step costs half. The paper does not give the size of a step on pixels. Here a step changes them by `lr` grey levels
(root mean square over all exemplars), with momentum, whatever the gradient's size is.

The weights that take the temporary model's steps are the folded ones, so that its rate counts by channel.

The rule "class-means" has the loss of the authors' released code, over the new classes and with the steps above. The
rule "from-scratch" is ours: its temporary models start from nothing, as do models that know nothing but exemplars.
docs/exemplars.md says what each is worth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import model_validator

from lwmfw import Component, Field, Options, Refiner, UserError, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lwmfw import Images, Run, Selection, Step, StepResult
    from lwmfw_plugins.refiners.mnemonics._gradients import Gradient

_SHOWN = 8  # classes in a picture, and exemplars of each
_TINY = 1e-30


class Way(NamedTuple):
    """How far the steps on pixels have come.

    Attributes:
        pixels: (N, C, H, W), float32, within 0..255, not rounded.
        velocity: of the next step, likewise.
        losses: before each step so far (steps,).
    """

    pixels: Tensor
    velocity: Tensor
    losses: Tensor

    @classmethod
    def beginning(cls, pixels: Tensor) -> Way:
        """No step is made of some pixels (N, C, H, W)."""
        import torch

        start = pixels.float()
        return cls(start, torch.zeros_like(start), start.new_empty(0))


def adjusted(
    way: Way,
    gradient: Gradient,
    iterations: int,
    lr: float,
    momentum: float,
    behind: Callable[[Way], None] | None = None,
) -> Way:
    """Pixels after some steps down a gradient (equations 9, 10a, 10b), each of a given length.

    A step is lr * v, v <- momentum * v + g / rms(g), and stays within 0..255.

    Args:
        way: where it begins, or goes on.
        gradient: asked once a step.
        iterations: how many steps, those made already included.
        lr: grey levels, root mean square over all pixels, of a step without momentum.
        momentum: of the steps.
        behind: is told after each.
    """
    import torch

    for _ in range(len(way.losses), iterations):
        loss, slope = gradient(way.pixels)
        velocity = momentum * way.velocity + slope / slope.square().mean().sqrt().clamp(min=_TINY)
        way = Way((way.pixels - lr * velocity).clamp_(0, 255), velocity, torch.cat([way.losses, loss.view(1)]))
        if behind:
            behind(way)
    return way


class MnemonicsOptions(Options):
    """Options of mnemonics."""

    rule: Literal["unrolled", "from-scratch", "class-means"] = Field(
        "unrolled",
        description="unrolled: equations 9 and 10 of the paper; from-scratch: likewise, but for a linear classifier on "
        "fresh networks that are trained on the exemplars; class-means: the loss of the released code, without a "
        "temporary model, over the new classes",
    )
    iterations: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="steps on the pixels of new exemplars, and of each half of the older ones",
    )
    lr: float = Field(
        0.05, gt=0, le=255, description="size of a step on the pixels in grey levels, root mean square (beta)"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the steps on the pixels; 0: as in the paper")
    unrolled: int = Field(
        3, ge=1, le=1000, description="steps of the temporary model that are differentiated through; from-scratch: 100"
    )
    inner_lr: float = Field(
        1e-3, gt=0, le=10, description="learning rate of the temporary model (alpha_2); from-scratch: 1"
    )
    batch_size: int = Field(64, ge=1, le=65_536, description="exemplars in a step of the temporary model")
    queries: int = Field(256, ge=1, le=65_536, description="images that the temporary model is judged on")
    epochs: int = Field(
        20, ge=1, le=100_000, description="from-scratch: most epochs for which a fresh network is trained"
    )
    renew: int = Field(5, ge=1, le=1_000_000, description="from-scratch: steps on the pixels until the next network")
    old: bool = Field(
        True, description="whether older exemplars are adjusted too (equations 10a and 10b); class-means never does"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_suits_the_rule(cls, given: Any) -> Any:
        """A linear classifier that starts at zero takes more and larger steps than a model that is trained."""
        if isinstance(given, dict) and given.get("rule") == "from-scratch":
            return {"unrolled": 100, "inner_lr": 1.0} | given
        return given


class Mnemonics:
    """Exemplars optimised so that a model trained on them does well: the paper's bilevel optimisation (Mnemonics)."""

    spares_first_step = pauses = True

    def __init__(self, options: MnemonicsOptions) -> None:
        self.options = options
        # networks that start from nothing have to be of one piece
        self.needs = frozenset({"features"} if options.rule == "from-scratch" else ())
        self.told: dict[str, Any] = {}
        self.underway: dict[str, Any] = {}

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Refuse images that have no pixels yet."""
        from lwmfw import Images

        if not isinstance(run.data.train, Images):
            raise UserError('the images stay in their files and have no pixels to change; set data.decode = "once"')

    @hookimpl(wrapper=True)
    def select_memory(
        self, run: Run, step: Step, candidates: Images, rng: torch.Generator, name: str
    ) -> Generator[None, Selection, Selection]:
        """Adjust what was selected, or go on with that."""
        from lwmfw import Images, Selection
        from lwmfw_plugins.refiners.mnemonics._gradients import RULES

        selection = yield
        before = selection.images(candidates)
        assert isinstance(before, Images), "others are refused before the run"  # noqa: S101
        labels, left = before.labels, self.underway
        pixels = left["stored"].to(labels.device) if left else before.pixels.clone()
        self.told = self.told if left else {}
        started = time.perf_counter() - left.get("seconds", 0.0)
        if left:
            rng.set_state(left["rng"])

        def adjust(part: str, chosen: Tensor, queries: Images) -> None:
            if part in self.told or not chosen.any() or not len(queries):
                return
            gradient = RULES[self.options.rule](run, labels[chosen], queries, self.options, rng)

            def behind(way: Way) -> None:
                if len(way.losses) % self._piece == 0:
                    here = {"rng": rng.get_state(), "seconds": time.perf_counter() - started}
                    self.underway = {"stored": pixels, **way._asdict(), **here}
                    run.pause(name)

            way = Way(*(self.underway[key] for key in Way._fields)) if self.underway else Way.beginning(pixels[chosen])
            pixels[chosen] = self._adjusted(part, pixels[chosen], way, gradient, behind)
            self.underway = {}

        new = labels >= step.new_classes.start
        adjust("new", new, candidates.of_classes(step.new_classes))
        if self.options.old and self.options.rule != "class-means":
            even = (selection.ranks % 2 == 0).to(labels.device)
            old = ~new & (labels.bincount()[labels] > 1)  # a single exemplar has no other half to be judged on
            adjust("old A", old & even, Images(pixels[old & ~even], labels[old & ~even]))
            adjust("old B", old & ~even, Images(pixels[old & even], labels[old & even]))
        self._record(run, f"{name}/step-{step.index}", before, pixels, time.perf_counter() - started)
        return Selection(selection.indices, {label: pixels[labels == label] for label in selection.indices})

    @property
    def _piece(self) -> int:
        """Steps behind which it can be left: behind others a fresh network would have to be kept too."""
        return self.options.renew if self.options.rule == "from-scratch" else 1

    def _adjusted(
        self, part: str, before: Tensor, way: Way, gradient: Gradient, behind: Callable[[Way], None]
    ) -> Tensor:
        """Exemplars after all steps, as they can be stored."""
        import torch

        options = self.options
        exact, _, losses = adjusted(way, gradient, options.iterations, options.lr, options.momentum, behind)
        if not exact.isfinite().all():
            raise ValueError(f"the loss of rule {options.rule} is not finite; lower inner_lr or lr")
        stored = exact.round().to(torch.uint8)
        tenth = max(1, options.iterations // 10)
        batches = options.unrolled * min(options.batch_size, len(before))
        shown = options.queries + (batches if options.rule == "unrolled" else len(before))
        self.told[part] = {
            "exemplars": len(before),
            "images_shown": options.iterations * shown,
            "change": float((stored.float() - before.float()).abs().mean()),
            "rounding": float((stored.float() - exact).abs().mean()),
            "loss": [float(losses[:tenth].mean()), float(losses[-tenth:].mean())],
        }
        return stored

    def _record(self, run: Run, file: str, before: Images, pixels: Tensor, seconds: float) -> None:
        """Write into the run directory what it cost, and a picture of some classes."""
        from lwmfw_plugins._pictures import before_and_after, evenly_spread

        if run.directory is None or not self.told:
            return
        shown: int = sum(part["images_shown"] for part in self.told.values())
        cost = {"seconds": seconds}
        if self.options.rule != "from-scratch":  # which trains networks on more images than those counted
            cost["images_per_s"] = shown / seconds
        run.directory.write(f"{file}.json", json.dumps(self.told | cost, indent=1).encode())
        chosen, labels, columns = evenly_spread(before.labels, _SHOWN)
        names = [run.results.class_names[label] for label in labels]
        picture = before_and_after(before.pixels[chosen], pixels[chosen], names, columns)
        run.directory.write(f"{file}.png", picture)

    @hookimpl
    def after_step(self, result: StepResult, name: str) -> None:
        """Put into the results what was changed."""
        result.extra[name] = self.told

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: what was changed, which the step has still to note, and how far a part has come."""
        return {"told": self.told, **self.underway}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.told = dict(state["told"])
        kept = (*Way._fields, "stored", "rng", "seconds")
        self.underway = {key: state[key] for key in kept} if len(state) > 1 else {}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Refiner("mnemonics", Mnemonics, MnemonicsOptions)
