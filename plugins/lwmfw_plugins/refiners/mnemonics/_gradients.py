"""What mnemonics asks of exemplars: three rules, each a function from pixels to a loss and its gradient by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize

from lwmfw import frozen_copy
from lwmfw_plugins.refiners.mnemonics._unrolled import InnerLoss, Parameters, unrolled_gradient

if TYPE_CHECKING:
    from lwmfw import Images, Loader, Model, Run
    from lwmfw_plugins.refiners.mnemonics import MnemonicsOptions

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels (N, C, H, W), float -> a loss, and its gradient by them."""

_CHUNK = 128  # images whose graph is kept at a time where features are all that is asked of a model
_BATCH = 32  # exemplars in a batch that a fresh network is trained on
_MOMENTUM = 0.9  # of the linear classifier's steps
_DECAY = 1e-3  # of its weights


def class_means_gradient(
    features: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, queries: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """The released code's loss: cross-entropy of queries' cosines to the mean features of each class's exemplars.

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
    found = in_parts(features, pixels).requires_grad_()
    # a sum points where the mean does
    sums = found.new_zeros(int(labels.max()) + 1, found.shape[1]).index_add(0, labels, found)
    loss = cross_entropy(normalize(queries) @ normalize(sums).T, truth)
    (slopes,) = torch.autograd.grad(loss, found)
    return loss.detach(), back_in_parts(features, pixels, slopes)


def in_parts(features: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Features (N, D) of images (N, C, H, W), a part at a time and without a graph."""
    with torch.no_grad():
        return torch.cat([features(part) for part in pixels.split(_CHUNK)])


def back_in_parts(features: Callable[[Tensor], Tensor], pixels: Tensor, slopes: Tensor) -> Tensor:
    """The gradient by pixels of a loss whose gradient by their features is known, a part at a time."""
    found = []
    for part, slope in zip(pixels.split(_CHUNK), slopes.split(_CHUNK), strict=True):
        leaf = part.detach().requires_grad_()
        found += torch.autograd.grad(features(leaf), leaf, slope)
    return torch.cat(found)


def loss_on(model: Model, loader: Loader, labels: Tensor, index: Tensor, rng: torch.Generator) -> InnerLoss:
    """Cross-entropy of a model on some images, augmented as in training, in the same way whenever it is asked.

    Args:
        model: lends its structure to the parameters.
        loader: augments and normalises.
        labels: of all images (N,).
        index: which of them the loss is taken on.
        rng: draws the augmentation.
    """
    drawn, truth = loader.draw(len(index), rng), labels[index]

    def loss(parameters: Parameters, pixels: Tensor) -> Tensor:
        images = loader.normalise(loader.augment(pixels[index], *drawn))
        return cross_entropy(functional_call(model, parameters, (images,)).logits, truth)

    return loss


def involved(parameters: Mapping[str, Tensor], loss: InnerLoss, pixels: Tensor) -> Parameters:
    """The parameters that a loss depends on."""
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    slopes = torch.autograd.grad(loss(leaves, pixels), list(leaves.values()), allow_unused=True)
    return {name: p for (name, p), slope in zip(leaves.items(), slopes, strict=True) if slope is not None}


def by_unrolling(
    run: Run, labels: Tensor, queries: Images, options: MnemonicsOptions, rng: torch.Generator
) -> Gradient:
    """What equation 9 wants of exemplars: the loss on queries after the temporary model has taken steps on them.

    Args:
        run: its model is where the temporary one starts.
        labels: of the exemplars (N,).
        queries: what stands for D_i, or the other half of the exemplars.
        options: how many steps, on how many images.
        rng: draws images and augmentation anew whenever the gradient is asked for.
    """
    model, loader, count = frozen_copy(run.model), run.loader, options.unrolled
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
    run: Run, labels: Tensor, queries: Images, options: MnemonicsOptions, rng: torch.Generator
) -> Gradient:
    """What the released code's loss wants of exemplars, with the trained model; arguments as of `by_unrolling`.

    Queries and means are those of the exemplars' classes, the new ones; the released code has old classes' means beside
    them, which do not move.
    """
    model, loader = frozen_copy(run.model), run.loader
    classes, places = labels.unique(return_inverse=True)
    known = queries.select(torch.isin(queries.labels, classes).nonzero().flatten())

    def features(images: Tensor) -> Tensor:
        return model(loader.normalise(images)).features  # type: ignore[no-any-return]

    def gradient(pixels: Tensor) -> tuple[Tensor, Tensor]:
        asked = drawn(known, options.queries, rng)
        found = in_parts(features, loader.augment(asked.pixels, *loader.draw(len(asked), rng)))
        return class_means_gradient(features, pixels, places, found, torch.searchsorted(classes, asked.labels))

    return gradient


def from_scratch(
    run: Run, labels: Tensor, queries: Images, options: MnemonicsOptions, rng: torch.Generator
) -> Gradient:
    """What a fresh network that is trained on exemplars wants of them; arguments as of `by_unrolling`.

    The network is trained on the exemplars as they are, for a random number of epochs, and renewed now and then. The
    steps that are differentiated are those of a linear classifier on its features, which start at zero.
    """
    loader, asked_before = run.loader, 0
    network: Model

    def features(images: Tensor) -> Tensor:
        return network(loader.normalise(images)).features  # type: ignore[no-any-return]

    def gradient(pixels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal network, asked_before
        if asked_before % options.renew == 0:
            network = trained_on(run, pixels, labels, int(torch.randint(1, options.epochs + 1, (), generator=rng)), rng)
        asked_before += 1
        leaf, asked = pixels.detach().requires_grad_(), drawn(queries, options.queries, rng)
        shown = loader.augment(leaf, *loader.draw(len(leaf), rng))
        theirs = in_parts(features, loader.augment(asked.pixels, *loader.draw(len(asked), rng)))
        loss, slopes = probe_gradient(in_parts(features, shown.detach()), labels, theirs, asked.labels, options)
        (by_pixels,) = torch.autograd.grad(shown, leaf, back_in_parts(features, shown, slopes))
        return loss, by_pixels

    return gradient


def probe_gradient(
    features: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, options: MnemonicsOptions
) -> tuple[Tensor, Tensor]:
    """The loss on queries of a linear classifier that has taken steps on features, and its gradient by those.

    Features are standardised by the mean and the deviation of those that are trained on, which count as constants, and
    divided by the square root of their number of dimensions, so that a rate of 1 suits any network.

    Args:
        features: (N, D), of the exemplars.
        labels: (N,), theirs.
        queries: (Q, D), features that the classifier is judged on.
        truth: (Q,), their labels.
        options: how many steps, at which rate.

    Returns:
        The loss, and its gradient (N, D).
    """
    mean, deviation = features.mean(0), features.std(0, correction=min(1, len(features) - 1))
    scale = (deviation + 0.01 * features.std()).clamp(min=1e-6) * features.shape[1] ** 0.5

    def logits(probe: Parameters, given: Tensor) -> Tensor:
        found: Tensor = (given - mean) / scale @ probe["weight"] + probe["bias"]
        return found

    def loss(probe: Parameters, given: Tensor) -> Tensor:
        return cross_entropy(logits(probe, given), labels) + _DECAY * probe["weight"].square().sum() / 2

    classes = 1 + int(max(labels.max(), truth.max()))
    probe = {"weight": features.new_zeros(features.shape[1], classes), "bias": features.new_zeros(classes)}
    steps = [loss] * options.unrolled
    return unrolled_gradient(
        probe, features, steps, lambda p: cross_entropy(logits(p, queries), truth), options.inner_lr, _MOMENTUM
    )


def trained_on(run: Run, pixels: Tensor, labels: Tensor, epochs: int, rng: torch.Generator) -> Model:
    """A fresh network after some epochs of exemplars, BatchNorm folded: SGD, the rate falling from 0.1 as a cosine.

    What a network draws in training, as dropout does, follows from `rng` too, of which no number is used up for it.
    """
    model, loader = run.fresh_model(rng), run.loader
    seed = int(torch.randint(1, 2**62, (), generator=torch.Generator().set_state(rng.get_state())))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)
    batches = [index for _ in range(epochs) for index in torch.randperm(len(labels), generator=rng).split(_BATCH)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    model.train()
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for index in batches:
            images = loader.normalise(loader.augment(pixels[index], *loader.draw(len(index), rng)))
            loss = cross_entropy(model(images).logits, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return frozen_copy(model)


def drawn(images: Images, count: int, rng: torch.Generator) -> Images:
    """So many images at random, some more than once."""
    return images.select(torch.randint(len(images), (count,), generator=rng))


RULES = {"unrolled": by_unrolling, "from-scratch": from_scratch, "class-means": by_class_means}
