"""What mnemonics asks of exemplars: the unrolled gradient and the three rules, each against a slow reference."""

import gc
import weakref

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from lwmfw import frozen_copy
from lwmfw.data.loader import crop_and_flip
from lwmfw.testing import outputs_pair, tiny_run
from lwmfw_plugins.refiners.mnemonics import MnemonicsOptions, Way, _gradients, adjusted
from lwmfw_plugins.refiners.mnemonics._gradients import (
    RULES,
    back_in_parts,
    class_means_gradient,
    in_parts,
    probe_gradient,
)
from lwmfw_plugins.refiners.mnemonics._unrolled import descend, unrolled_gradient

RATE = 0.3
MEMORY = {"budget": "4 per class", "select": {"use": "herding"}}
SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
FEW = {"use": "mnemonics", "iterations": 3, "batch_size": 4, "queries": 8}


def problem(steps=3):
    """A convolutional model in float64, exemplars, its losses on augmented parts of them, and an outer loss."""
    pair = outputs_pair()
    model, images, labels = frozen_copy(pair.model), 60 * pair.batch.images[:4] + 120, pair.batch.labels[:4]
    rng = torch.Generator().manual_seed(0)

    def loss_on(index, truth, shifts, mirrored):
        def loss(parameters, pixels):
            shown = crop_and_flip(pixels[index], shifts, mirrored, 1).sub(120).div(60)
            return cross_entropy(functional_call(model, parameters, (shown,)).logits, truth)

        return loss

    losses = []
    for _ in range(steps):
        index = torch.randperm(4, generator=rng)[:3]
        shifts, mirrored = torch.randint(3, (2, 3), generator=rng), torch.rand(3, generator=rng) < 0.5
        losses.append(loss_on(index, labels[index], shifts, mirrored))
    queries = loss_on(torch.arange(4), pair.batch.labels[4:], torch.ones(2, 4, dtype=torch.int64), torch.zeros(4) > 0)
    outer_pixels = 60 * pair.batch.images[4:] + 120
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return parameters, images, losses, lambda p: queries(p, outer_pixels)


# the gradient


def test_the_gradient_of_the_unrolled_objective_equals_finite_differences():
    parameters, images, losses, outer = problem()
    value, gradient = unrolled_gradient(parameters, images, losses, outer, RATE)
    assert_close(value, outer(descend(parameters, images, losses, RATE)[-1]))
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        way = torch.randn(images.shape, dtype=torch.float64, generator=rng)
        ahead, behind = (
            outer(descend(parameters, images + sign * 1e-4 * way, losses, RATE)[-1]).detach() for sign in (1, -1)
        )
        assert_close((gradient * way).sum(), (ahead - behind) / 2e-4, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (2, 0.9), (5, 0.0), (5, 0.9)])
def test_it_equals_a_loop_that_keeps_every_graph(steps, momentum):
    parameters, images, losses, outer = problem(steps)
    pixels = images.clone().requires_grad_()
    theta = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    momenta = dict.fromkeys(theta, 0)
    for loss in losses:
        slopes = torch.autograd.grad(loss(theta, pixels), list(theta.values()), create_graph=True)
        momenta = {name: momentum * m + slope for (name, m), slope in zip(momenta.items(), slopes, strict=True)}
        theta = {name: p - RATE * momenta[name] for name, p in theta.items()}
    expected = outer(theta)
    (by_pixels,) = torch.autograd.grad(expected, pixels)
    value, gradient = unrolled_gradient(parameters, images, losses, outer, RATE, momentum)
    assert_close(value, expected.detach())
    assert_close(gradient, by_pixels)
    assert gradient.abs().max() > 0


def test_only_one_step_has_a_graph_at_a_time():
    def most_alive(steps):
        parameters, images, losses, outer = problem(steps)
        alive, most = set(), 0

        class Kept:
            def __init__(self, tensor):
                self.tensor = tensor

        def keep(tensor):
            nonlocal most
            kept = Kept(tensor)
            alive.add(id(kept))
            weakref.finalize(kept, alive.discard, id(kept))
            most = max(most, len(alive))
            return kept

        gc.collect()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
            unrolled_gradient(parameters, images, losses, outer, RATE)
        return most

    assert most_alive(8) == most_alive(2) > 0


def test_steps_lower_what_they_descend():
    parameters, images, losses, outer = problem()

    def gradient(pixels):
        value, slope = unrolled_gradient(parameters, pixels.double(), losses, outer, RATE)
        return value, slope.float()

    values = adjusted(Way.beginning(images.clamp(0, 255).to(torch.uint8)), gradient, 15, 1.0, 0.0).losses
    assert values[-1] < values[0]


# the rule of the released code


def test_the_rule_of_class_means_equals_differentiating_all_at_once(monkeypatch):
    monkeypatch.setattr(_gradients, "_CHUNK", 3)  # 8 exemplars: parts of 3, 3 and 2
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 12, dtype=torch.float64, generator=rng)
    pixels, queries = (torch.randn(n, 3, 2, 2, dtype=torch.float64, generator=rng) for n in (8, 4))
    labels, truth = torch.tensor([0, 1, 2, 2, 0, 1, 0, 2]), torch.tensor([2, 1, 0, 0])

    def features(images):
        return (images.flatten(1) @ weight.T).tanh()

    leaf = pixels.clone().requires_grad_()
    means = torch.stack([normalize(features(leaf)[labels == c].mean(0), dim=0) for c in range(3)])
    expected = cross_entropy(normalize(features(queries)) @ means.T, truth)
    (by_pixels,) = torch.autograd.grad(expected, leaf)
    loss, gradient = class_means_gradient(features, pixels, labels, features(queries), truth)
    assert_close(loss, expected.detach())
    assert_close(gradient, by_pixels)


# the rule of fresh networks


def test_what_a_linear_classifier_wants_of_features_equals_finite_differences():
    rng = torch.Generator().manual_seed(0)
    features, queries = (torch.randn(n, 5, dtype=torch.float64, generator=rng) for n in (8, 6))
    labels, truth = torch.tensor([0, 1, 2, 2, 0, 1, 0, 2]), torch.tensor([2, 1, 0, 0, 1, 2])
    options = MnemonicsOptions(rule="from-scratch", unrolled=6, inner_lr=1.0)
    loss, gradient = probe_gradient(features, labels, queries, truth, options)
    mean, scale = features.mean(0), (features.std(0) + 0.01 * features.std()) * 5**0.5

    def after(given):
        weight, bias = torch.zeros(5, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for _ in range(6):
            z = (given - mean) / scale
            error = ((z @ weight + bias).softmax(1) - torch.eye(3)[labels]) / len(labels)
            by_weight, by_bias = 0.9 * by_weight + z.T @ error + 1e-3 * weight, 0.9 * by_bias + error.sum(0)
            weight, bias = weight - by_weight, bias - by_bias
        return cross_entropy((queries - mean) / scale @ weight + bias, truth)

    assert_close(loss, after(features))
    for _ in range(10):
        way = torch.randn(features.shape, dtype=torch.float64, generator=rng)
        change = (after(features + 1e-5 * way) - after(features - 1e-5 * way)) / 2e-5
        assert_close((gradient * way).sum(), change, rtol=1e-6, atol=1e-12)


def test_features_are_asked_for_and_differentiated_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(_gradients, "_CHUNK", 3)
    pixels, sizes = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), []

    def features(part):
        sizes.append(len(part))
        return part.sin()

    slopes = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_close(in_parts(features, pixels), pixels.sin())
    assert_close(back_in_parts(features, pixels, slopes), slopes * pixels.cos())
    assert sizes == [3, 3, 2] * 2


# the rules in a run


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run in float32 whose model has seen four classes, and four exemplars of each of the last two."""
    run = tiny_run(SEEN, tmp_path_factory.mktemp("grown")).run
    new = run.data.train.of_classes(range(2, 4))
    return run, new, new.select(torch.tensor([0, 3, 5, 7, 16, 20, 21, 30]))


def test_the_unrolled_rule_asks_what_equation_9_asks(grown):
    run, new, exemplars = grown
    options = MnemonicsOptions(unrolled=2, batch_size=4, queries=8, inner_lr=0.01)
    pixels = exemplars.pixels.float()
    loss, gradient = RULES["unrolled"](run, exemplars.labels, new, options, torch.Generator().manual_seed(3))(pixels)

    rng, leaf = torch.Generator().manual_seed(3), pixels.clone().requires_grad_()
    model = frozen_copy(run.model)
    theta = {name: p.clone().requires_grad_() for name, p in model.named_parameters()}

    def cost(theta, images, labels, drawn):
        shown = run.loader.normalise(run.loader.augment(images, *drawn))
        return cross_entropy(functional_call(model, theta, (shown,)).logits, labels)

    first, second = torch.randperm(8, generator=rng).split(4)
    draws = [run.loader.draw(4, rng) for _ in range(2)]
    asked = torch.randint(32, (8,), generator=rng)
    judged = run.loader.draw(8, rng)
    for index, drawn in zip((first, second), draws, strict=True):
        inner = cost(theta, leaf[index], exemplars.labels[index], drawn)
        slopes = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        theta = {name: p - 0.01 * slope for (name, p), slope in zip(theta.items(), slopes, strict=True)}
    outer = cost(theta, new.pixels[asked], new.labels[asked], judged)
    assert_close(loss, outer.detach())
    assert_close(gradient, torch.autograd.grad(outer, leaf)[0], rtol=1e-3, atol=1e-8)


def test_the_rule_of_class_means_asks_for_means_that_queries_are_close_to(grown):
    run, new, exemplars = grown
    options, pixels = MnemonicsOptions(rule="class-means", queries=8), exemplars.pixels.float()
    given = torch.Generator().manual_seed(3)
    loss, gradient = RULES["class-means"](run, exemplars.labels, new, options, given)(pixels)

    rng, leaf = torch.Generator().manual_seed(3), pixels.clone().requires_grad_()
    asked = new.select(torch.randint(32, (8,), generator=rng))
    model, drawn = frozen_copy(run.model), run.loader.draw(8, rng)
    queries = model(run.loader.normalise(run.loader.augment(asked.pixels, *drawn))).features
    found = model(run.loader.normalise(leaf)).features
    means = torch.stack([normalize(found[exemplars.labels == c].mean(0), dim=0) for c in (2, 3)])
    expected = cross_entropy(normalize(queries) @ means.T, asked.labels - 2)
    assert_close(loss, expected.detach())
    assert_close(gradient, torch.autograd.grad(expected, leaf)[0], rtol=1e-3, atol=1e-9)


def test_from_scratch_has_steps_of_its_own():
    assert MnemonicsOptions(rule="from-scratch").unrolled == 100
    assert MnemonicsOptions(rule="from-scratch", inner_lr=0.5).inner_lr == 0.5
    assert MnemonicsOptions().unrolled == 3
