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
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from lwmfw import Component, Field, Options, Refiner, UserError, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lwmfw import Images, Run, Selection, Step, StepResult
    from lwmfw_plugins.refiners.mnemonics._gradients import Gradient

_SHOWN = 8  # classes in a picture, and exemplars of each
_TINY = 1e-30


def adjusted(pixels: Tensor, gradient: Gradient, iterations: int, lr: float, momentum: float) -> tuple[Tensor, Tensor]:
    """Pixels after some steps down a gradient (equations 9, 10a, 10b), each of a given length.

    A step is lr * v, v <- momentum * v + g / rms(g), and stays within 0..255.

    Args:
        pixels: (N, C, H, W), uint8.
        gradient: asked once a step.
        iterations: how many steps.
        lr: grey levels, root mean square over all pixels, of a step without momentum.
        momentum: of the steps.

    Returns:
        (N, C, H, W), float32, not rounded; and the loss before each step (iterations,).
    """
    import torch

    now, velocity, losses = pixels.float(), torch.zeros(pixels.shape, device=pixels.device), []
    for _ in range(iterations):
        loss, slope = gradient(now)
        velocity = momentum * velocity + slope / slope.square().mean().sqrt().clamp(min=_TINY)
        now = (now - lr * velocity).clamp_(0, 255)
        losses.append(loss)
    return now, torch.stack(losses)


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

    spares_first_step = True

    def __init__(self, options: MnemonicsOptions) -> None:
        self.options = options
        # networks that start from nothing have to be of one piece
        self.needs = frozenset({"features"} if options.rule == "from-scratch" else ())
        self.told: dict[str, Any] = {}

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
        """Adjust what was selected."""
        from lwmfw import Images, Selection
        from lwmfw_plugins.refiners.mnemonics._gradients import RULES

        selection = yield
        started, self.told = time.perf_counter(), {}
        before = selection.images(candidates)
        assert isinstance(before, Images), "others are refused before the run"  # noqa: S101
        pixels, labels = before.pixels.clone(), before.labels

        def adjust(part: str, chosen: Tensor, queries: Images) -> None:
            if chosen.any() and len(queries):
                gradient = RULES[self.options.rule](run, labels[chosen], queries, self.options, rng)
                pixels[chosen] = self._adjust(part, pixels[chosen], gradient)

        new = labels >= step.new_classes.start
        adjust("new", new, candidates.of_classes(step.new_classes))
        if self.options.old and self.options.rule != "class-means":
            even = (selection.ranks % 2 == 0).to(labels.device)
            old = ~new & (labels.bincount()[labels] > 1)  # a single exemplar has no other half to be judged on
            adjust("old A", old & even, Images(pixels[old & ~even], labels[old & ~even]))
            adjust("old B", old & ~even, Images(pixels[old & even], labels[old & even]))
        self._record(run, f"{name}/step-{step.index}", before, pixels, time.perf_counter() - started)
        return Selection(selection.indices, {label: pixels[labels == label] for label in selection.indices})

    def _adjust(self, part: str, pixels: Tensor, gradient: Gradient) -> Tensor:
        """Exemplars after all steps, as they can be stored."""
        import torch

        options = self.options
        exact, losses = adjusted(pixels, gradient, options.iterations, options.lr, options.momentum)
        if not exact.isfinite().all():
            raise ValueError(f"the loss of rule {options.rule} is not finite; lower inner_lr or lr")
        stored = exact.round().to(torch.uint8)
        tenth = max(1, options.iterations // 10)
        batches = options.unrolled * min(options.batch_size, len(pixels))
        shown = options.queries + (batches if options.rule == "unrolled" else len(pixels))
        self.told[part] = {
            "exemplars": len(pixels),
            "images_shown": options.iterations * shown,
            "change": float((stored.float() - pixels.float()).abs().mean()),
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
        """What a checkpoint keeps: what was changed, which the step has still to note."""
        return {"told": self.told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.told = dict(state["told"])


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Refiner("mnemonics", Mnemonics, MnemonicsOptions)
