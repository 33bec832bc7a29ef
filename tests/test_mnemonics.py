"""Mnemonics: the unrolled gradient, the steps on pixels, whose data they are judged on, and what a run keeps of it."""

import gc
import json
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import make_folder
from PIL import Image
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from lwmfw import UserError, frozen_copy
from lwmfw.data import crop_and_flip
from lwmfw.errors import Interrupted, RunFailed
from lwmfw.testing import outputs_pair, tiny_run
from lwmfw_plugins.memory import exemplar_gradients, mnemonics
from lwmfw_plugins.memory.before_after import evenly_spread
from lwmfw_plugins.memory.exemplar_gradients import RULES, back_in_parts, class_means_gradient, in_parts, probe_gradient
from lwmfw_plugins.memory.mnemonics import MnemonicsOptions, adjusted
from lwmfw_plugins.memory.unrolled import descend, unrolled_gradient

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


# steps on pixels


def test_a_step_has_a_length_and_a_momentum():
    pixels = torch.full((2, 1, 3, 3), 100, dtype=torch.uint8)
    slopes = torch.randn(3, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    given = iter(slopes)
    now, losses = adjusted(pixels, lambda e: (e.mean(), next(given)), 3, lr=0.5, momentum=0.9)
    expected, velocity = pixels.float(), 0
    for slope in slopes:
        velocity = 0.9 * velocity + slope / slope.square().mean().sqrt()
        expected = expected - 0.5 * velocity
    assert_close(now, expected)
    assert losses[0] == 100
    assert losses.shape == (3,)


@given(seed=st.integers(0, 10**6), lr=st.floats(0.1, 255))
def test_pixels_stay_those_of_an_image(seed, lr):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (2, 1, 2, 2), dtype=torch.uint8, generator=rng)
    now, _ = adjusted(pixels, lambda e: (e.sum(), torch.randn(e.shape, generator=rng)), 4, lr, 0.9)
    assert now.min() >= 0
    assert now.max() <= 255


def test_no_gradient_is_no_change():
    pixels = torch.full((1, 1, 2, 2), 7, dtype=torch.uint8)
    now, _ = adjusted(pixels, lambda e: (e.sum(), torch.zeros_like(e)), 5, 1.0, 0.9)
    assert torch.equal(now, pixels.float())


def test_steps_lower_what_they_descend():
    parameters, images, losses, outer = problem()

    def gradient(pixels):
        value, slope = unrolled_gradient(parameters, pixels.double(), losses, outer, RATE)
        return value, slope.float()

    _, values = adjusted(images.clamp(0, 255).to(torch.uint8), gradient, 15, 1.0, 0.0)
    assert values[-1] < values[0]


# the rule of the released code


def test_the_rule_of_class_means_equals_differentiating_all_at_once(monkeypatch):
    monkeypatch.setattr(exemplar_gradients, "_CHUNK", 3)  # 8 exemplars: parts of 3, 3 and 2
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
    monkeypatch.setattr(exemplar_gradients, "_CHUNK", 3)
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


# runs


def run_with(tmp_path, refiner, **tables):
    tmp_path.mkdir(exist_ok=True)
    memory = MEMORY | tables.pop("memory", {}) | {"refine": [refiner] if refiner else []}
    return tiny_run(SEEN | {"memory": memory} | tables, tmp_path)


def test_what_is_stored_was_changed_and_says_by_how_much(tmp_path):
    plain, made = run_with(tmp_path / "plain", None), run_with(tmp_path / "made", FEW)
    before, after = plain.run.memory.images(), made.run.memory.images()
    assert torch.equal(before.labels, after.labels)
    told = made.results.steps[-1].extra["mnemonics"]
    assert list(told) == ["new", "old A", "old B"]
    assert [part["exemplars"] for part in told.values()] == [8, 4, 4]
    assert all(0 < part["change"] < 10 and part["rounding"] <= 0.5 for part in told.values())
    # the first step's selection does not depend on what is stored of it
    first = made.results.steps[0].extra["mnemonics"]
    assert list(first) == ["new"]
    assert not torch.equal(before.pixels[:8], after.pixels[:8])


def test_the_model_is_left_as_it_was(tmp_path):
    plain, made = run_with(tmp_path / "plain", None), run_with(tmp_path / "made", FEW)
    # one step later the exemplars differ and so do the models: the first step tells
    assert made.results.steps[0].accuracy == plain.results.steps[0].accuracy
    one = {"scenario": {"first": 4, "increment": 0}}
    plain, made = run_with(tmp_path / "a", None, **one), run_with(tmp_path / "b", FEW, **one)
    for name, value in plain.run.model.state_dict().items():
        assert torch.equal(value, made.run.model.state_dict()[name]), name


def test_new_exemplars_are_judged_on_the_data_and_each_half_of_the_old_on_the_other(tmp_path, monkeypatch):
    asked = []

    def noting(run, labels, queries, options, rng):
        asked.append((labels.tolist(), queries))
        return lambda pixels: (pixels.mean(), torch.ones_like(pixels))

    monkeypatch.setitem(RULES, "unrolled", noting)
    run_with(tmp_path, FEW | {"lr": 5.0, "momentum": 0.0})
    (_, first), (labels, new), (half, other), (rest, changed) = asked
    assert len(first) == 32, "all training images of the classes of step 1"
    assert labels == [2] * 4 + [3] * 4
    assert new.labels.tolist() == [2] * 16 + [3] * 16
    assert half == rest == [0, 0, 1, 1]
    assert other.labels.tolist() == changed.labels.tolist() == [0, 0, 1, 1]
    assert not torch.equal(other.pixels, changed.pixels), "the halves are disjoint"


def test_fresh_networks_adjust_old_and_new_exemplars_and_leave_the_run_alone(tmp_path):
    scratch = FEW | {"rule": "from-scratch", "unrolled": 5, "inner_lr": 1.0, "epochs": 2, "renew": 2}
    one = {"scenario": {"first": 4, "increment": 0}}
    plain, made = run_with(tmp_path / "a", None, **one), run_with(tmp_path / "b", scratch, **one)
    for name, value in plain.run.model.state_dict().items():
        assert torch.equal(value, made.run.model.state_dict()[name]), name
    told = run_with(tmp_path / "c", scratch).results.steps[-1].extra["mnemonics"]
    assert list(told) == ["new", "old A", "old B"]
    assert told["new"]["images_shown"] == 3 * (8 + 8)
    again = run_with(tmp_path / "d", scratch).results.steps[-1].extra["mnemonics"]
    assert told == again


@pytest.mark.parametrize("options", [{"old": False}, {"rule": "class-means"}])
def test_older_exemplars_can_be_left_alone(options, tmp_path):
    run = run_with(tmp_path, FEW | options)
    assert [list(step.extra["mnemonics"]) for step in run.results.steps] == [["new"], ["new"]]


def test_the_run_directory_has_the_cost_and_a_picture_of_each_step(tmp_path):
    path = run_with(tmp_path, FEW).path / "mnemonics"
    assert sorted(file.name for file in path.iterdir()) == [
        "step-1.json", "step-1.png", "step-2.json", "step-2.png",
    ]  # fmt: skip
    cost = json.loads((path / "step-2.json").read_text())
    assert cost["new"]["images_shown"] == 3 * (3 * 4 + 8)
    assert cost["images_per_s"] * cost["seconds"] == pytest.approx(3 * 3 * (3 * 4 + 8))
    with Image.open(path / "step-2.png") as picture:
        assert picture.width > 3 * 4 * 64
        assert picture.height > 4 * 64


def test_a_picture_shows_the_first_and_the_last_class():
    labels = torch.arange(20).repeat_interleave(5)
    positions, classes, columns = evenly_spread(labels, 3)
    assert classes == [0, 10, 19]
    assert columns == 3
    assert positions.tolist() == [0, 1, 2, 50, 51, 52, 95, 96, 97]


def test_single_exemplars_have_no_other_half(tmp_path):
    for rule in RULES:
        made = run_with(tmp_path / rule, FEW | {"rule": rule, "epochs": 1}, memory={"budget": "1 per class"})
        assert [list(step.extra["mnemonics"]) for step in made.results.steps] == [["new"], ["new"]]


def test_a_second_one_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"mnemonics \(from lwmfw\): is in memory.refine twice; leave one out"):
        tiny_run(SEEN | {"memory": MEMORY | {"refine": [FEW, FEW | {"as": "again"}]}}, tmp_path)


def test_exemplars_in_jpeg_are_refined_too(tmp_path):
    jpeg = {"codec": {"use": "jpeg", "quality": 75}}
    plain = run_with(tmp_path / "plain", None, memory=jpeg).run.memory
    made = run_with(tmp_path / "made", FEW, memory=jpeg).run.memory
    assert all(stored.encoded.startswith(b"\xff\xd8") for stored in made.exemplars)
    assert [s.encoded for s in made.exemplars] != [s.encoded for s in plain.exemplars]


def test_a_resumed_run_makes_the_same_exemplars(tmp_path, monkeypatch):
    whole = run_with(tmp_path / "whole", FEW)
    halved, calls = tmp_path / "halved", []

    def interrupted(*given, refine=adjusted):
        calls.append(1)
        if len(calls) == 3:  # the second step's second part
            raise KeyboardInterrupt
        return refine(*given)

    monkeypatch.setattr(mnemonics, "adjusted", interrupted)
    with pytest.raises(Interrupted):
        run_with(halved, FEW)
    monkeypatch.undo()
    resumed = run_with(halved, FEW)
    assert resumed.run.memory.exemplars == whole.run.memory.exemplars
    assert [s.extra for s in resumed.results.steps] == [s.extra for s in whole.results.steps]


def test_a_temporary_model_that_bursts_is_said_to(tmp_path):
    with pytest.raises(RunFailed, match=r"ValueError: the loss of rule unrolled is not finite; lower inner_lr or lr;"):
        run_with(tmp_path, FEW | {"inner_lr": 10.0, "unrolled": 20})


def test_images_that_stay_in_their_files_are_refused(tmp_path):
    make_folder(tmp_path / "pictures")
    data = {"use": "folder", "root": str(tmp_path / "pictures"), "size": 8}
    with pytest.raises(UserError, match=r'the images stay in their files .*; set data\.decode = "once"'):
        run_with(tmp_path / "run", FEW, data=data, scenario={"first": 2, "increment": 0})
