"""mnemonics: exemplars that are trained like parameters (Liu et al., CVPR 2020).

Equation 9 adjusts the exemplars of new classes: a temporary model, which starts as the trained one, takes some steps on
them, and its loss on the new training data is differentiated into their pixels. Equations 10a and 10b adjust the older
exemplars in two halves, the other half in the place of the data that is gone. The code that its authors released does
something simpler, which is here under its own name, "class-means".

The temporary model has its BatchNorm folded into the convolutions: its statistics stay those of the trained model, as
they would in evaluation mode, and a step costs half. The paper does not give the size of a step on pixels. Here a step
changes them by `lr` grey levels (root mean square over all exemplars), with momentum, whatever the gradient's size is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from lwmfw import Component, Field, Options, Refiner, UserError, hookimpl
from lwmfw_plugins.memory.unrolled import InnerLoss, Parameters, unrolled_gradient

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lwmfw import Images, Loader, Model, Run, Selection, Step, StepResult

Gradient = Callable[["Tensor"], tuple["Tensor", "Tensor"]]
"""Pixels (N, C, H, W), float -> a loss, and its gradient by them."""

_CHUNK = 128  # images whose graph is kept at a time by the rule of class means
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


def class_means_gradient(
    features: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, queries: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """The released code's rule: cross-entropy of queries' cosines to the mean features of each class's exemplars.

    The gradient goes through the means to the features, and from there to the pixels a part at a time, so that memory
    does not grow with the number of exemplars.

    Args:
        features: pixels -> (B, D).
        pixels: (N, C, H, W), exemplars.
        labels: (N,), their classes as 0..K-1, each of which has an exemplar.
        queries: (Q, D), features of the images to be told apart.
        truth: (Q,), their classes likewise.

    Returns:
        The loss, and its gradient by the pixels.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    parts = [part.detach().requires_grad_() for part in pixels.split(_CHUNK)]
    with torch.no_grad():
        found = torch.cat([features(part) for part in parts])
    found.requires_grad_()
    # a sum points where the mean does
    sums = found.new_zeros(int(labels.max()) + 1, found.shape[1]).index_add(0, labels, found)
    loss = cross_entropy(normalize(queries) @ normalize(sums).T, truth)
    (slopes,) = torch.autograd.grad(loss, found)
    pairs = zip(parts, slopes.split(_CHUNK), strict=True)
    return loss.detach(), torch.cat([torch.autograd.grad(features(part), part, slope)[0] for part, slope in pairs])


class MnemonicsOptions(Options):
    """Options of mnemonics."""

    rule: Literal["unrolled", "class-means"] = Field(
        "unrolled",
        description="unrolled: equations 9 and 10 of the paper; class-means: what its released code does, without a "
        "temporary model and for new exemplars only",
    )
    iterations: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="steps on the pixels of new exemplars, and of each half of the older ones",
    )
    lr: float = Field(0.2, gt=0, le=255, description="grey levels of a step on the pixels, root mean square (beta)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the steps on the pixels; 0: as the paper writes them")
    unrolled: int = Field(3, ge=1, le=1000, description="steps that the temporary model takes on exemplars")
    inner_lr: float = Field(
        1e-3, gt=0, le=10, description="learning rate of the temporary model (alpha_2), whose BatchNorm is folded"
    )
    batch_size: int = Field(64, ge=1, le=65_536, description="exemplars in a step of the temporary model")
    queries: int = Field(256, ge=1, le=65_536, description="images that the temporary model is judged on")
    old: bool = Field(True, description="whether older exemplars are adjusted too (equations 10a and 10b)")


def loss_on(model: Model, loader: Loader, labels: Tensor, index: Tensor, rng: torch.Generator) -> InnerLoss:
    """Cross-entropy of a model on some images, augmented as in training, in the same way whenever it is asked.

    Args:
        model: lends its structure to the parameters.
        loader: augments and normalises.
        labels: of all images (N,).
        index: which of them the loss is taken on.
        rng: draws the augmentation.
    """
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    drawn, truth = loader.draw(len(index), rng), labels[index]

    def loss(parameters: Parameters, pixels: Tensor) -> Tensor:
        images = loader.normalise(loader.augment(pixels[index], *drawn))
        return cross_entropy(functional_call(model, parameters, (images,)).logits, truth)

    return loss


def involved(parameters: Mapping[str, Tensor], loss: InnerLoss, pixels: Tensor) -> Parameters:
    """The parameters that a loss depends on."""
    import torch

    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    slopes = torch.autograd.grad(loss(leaves, pixels), list(leaves.values()), allow_unused=True)
    return {name: p for (name, p), slope in zip(leaves.items(), slopes, strict=True) if slope is not None}


def by_unrolling(
    model: Model, loader: Loader, labels: Tensor, queries: Images, options: MnemonicsOptions, rng: torch.Generator
) -> Gradient:
    """What equation 9 wants of exemplars: the loss on queries after the temporary model has taken steps on them.

    Args:
        model: the temporary model before its first step.
        loader: augments and normalises.
        labels: of the exemplars (N,).
        queries: what stands for D_i, or the other half of the exemplars.
        options: how many steps, on how many images.
        rng: draws images and augmentation anew whenever the gradient is asked for.
    """
    import torch

    count = options.unrolled
    size = min(options.batch_size, len(labels))
    parameters: Parameters = {}

    def gradient(pixels: Tensor) -> tuple[Tensor, Tensor]:
        rounds = -(-count * size // len(labels))
        order = torch.cat([torch.randperm(len(labels), generator=rng) for _ in range(rounds)])
        losses = [loss_on(model, loader, labels, index, rng) for index in order.split(size)[:count]]
        asked = torch.randint(len(queries), (options.queries,), generator=rng)
        outer = loss_on(model, loader, queries.labels, asked, rng)
        if not parameters:
            parameters.update(involved(dict(model.named_parameters()), losses[0], pixels))
        return unrolled_gradient(parameters, pixels, losses, lambda p: outer(p, queries.pixels), options.inner_lr)

    return gradient


def by_class_means(
    model: Model, loader: Loader, labels: Tensor, queries: Images, options: MnemonicsOptions, rng: torch.Generator
) -> Gradient:
    """What the released code's rule wants of exemplars; arguments as of `by_unrolling`."""
    import torch

    classes, places = labels.unique(return_inverse=True)
    known = queries.select(torch.isin(queries.labels, classes).nonzero().flatten())

    def features(pixels: Tensor) -> Tensor:
        return model(loader.normalise(pixels)).features  # type: ignore[no-any-return]

    def gradient(pixels: Tensor) -> tuple[Tensor, Tensor]:
        asked = known.select(torch.randint(len(known), (options.queries,), generator=rng))
        with torch.no_grad():
            found = features(loader.augment(asked.pixels, *loader.draw(len(asked), rng)))
        return class_means_gradient(features, pixels, places, found, torch.searchsorted(classes, asked.labels))

    return gradient


_RULES = {"unrolled": by_unrolling, "class-means": by_class_means}


class Mnemonics:
    """Exemplars trained so that what is trained on them does well (Mnemonics): the paper's bilevel optimisation."""

    spares_first_step = True

    def __init__(self, options: MnemonicsOptions) -> None:
        self.options = options
        self.told: dict[str, Any] = {}

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Refuse images that have no pixels yet."""
        from lwmfw import Images

        if not isinstance(run.data.train, Images):
            raise UserError('mnemonics (from lwmfw) changes pixels of images in memory; set data.decode = "once"')

    @hookimpl(wrapper=True)
    def select_memory(
        self, run: Run, step: Step, model: Model, candidates: Images, rng: torch.Generator
    ) -> Generator[None, Selection, Selection]:
        """Adjust what was selected."""
        import torch

        from lwmfw import Images, Selection, frozen_copy

        selection = yield
        started, temporary, self.told = time.perf_counter(), frozen_copy(model), {}
        before = selection.images(candidates)
        assert isinstance(before, Images), "others are refused before the run"  # noqa: S101
        pixels, labels = before.pixels.clone(), before.labels

        def adjust(name: str, chosen: Tensor, queries: Images) -> None:
            if chosen.any() and len(queries):
                gradient = _RULES[self.options.rule](temporary, run.loader, labels[chosen], queries, self.options, rng)
                pixels[chosen] = self._adjust(name, pixels[chosen], gradient)

        old = labels < step.new_classes.start
        adjust("new", ~old, candidates.of_classes(step.new_classes))
        if self.options.old and self.options.rule == "unrolled":
            ranks = torch.cat([torch.arange(len(selection.indices[label])) for label in sorted(selection.indices)])
            even = (ranks % 2 == 0).to(old.device)
            adjust("old A", old & even, Images(pixels[old & ~even], labels[old & ~even]))
            adjust("old B", old & ~even, Images(pixels[old & even], labels[old & even]))
        self._record(run, step, before, pixels, time.perf_counter() - started)
        return Selection(selection.indices, {label: pixels[labels == label] for label in selection.indices})

    def _adjust(self, name: str, pixels: Tensor, gradient: Gradient) -> Tensor:
        """Exemplars after all steps, as they can be stored."""
        import torch

        options = self.options
        exact, losses = adjusted(pixels, gradient, options.iterations, options.lr, options.momentum)
        if not exact.isfinite().all():
            raise UserError("mnemonics (from lwmfw): the temporary model's loss is not finite; lower its inner_lr")
        stored = exact.round().to(torch.uint8)
        tenth = max(1, options.iterations // 10)
        steps = options.unrolled * min(options.batch_size, len(pixels)) if options.rule == "unrolled" else len(pixels)
        self.told[name] = {
            "exemplars": len(pixels),
            "images_shown": options.iterations * (steps + options.queries),
            "change": float((stored.float() - pixels.float()).abs().mean()),
            "rounding": float((stored.float() - exact).abs().mean()),
            "loss": [float(losses[:tenth].mean()), float(losses[-tenth:].mean())],
        }
        return stored

    def _record(self, run: Run, step: Step, before: Images, pixels: Tensor, seconds: float) -> None:
        """Write into the run directory what it cost, and a picture of some classes."""
        from lwmfw_plugins.memory.before_after import before_and_after, evenly_spread

        if run.directory is None or not self.told:
            return
        shown: int = sum(part["images_shown"] for part in self.told.values())
        cost = {"seconds": seconds, "images_per_s": shown / seconds}
        run.directory.write(f"mnemonics/step-{step.index}.json", json.dumps(self.told | cost, indent=1).encode())
        chosen, labels, columns = evenly_spread(before.labels, _SHOWN)
        names = [run.results.class_names[label] for label in labels]
        picture = before_and_after(before.pixels[chosen], pixels[chosen], names, columns)
        run.directory.write(f"mnemonics/step-{step.index}.png", picture)

    @hookimpl
    def after_step(self, result: StepResult) -> None:
        """Put into the results what was changed."""
        result.extra["mnemonics"] = self.told


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Refiner("mnemonics", Mnemonics, MnemonicsOptions)
