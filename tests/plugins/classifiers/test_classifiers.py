"""cosine and proxies: similarities against slow loops, what is imprinted, what is frozen when; and k-means."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lwmfw import Observer, hookimpl
from lwmfw.errors import Interrupted
from lwmfw.testing import tiny_run
from lwmfw_plugins.classifiers._heads import CosineHead, ProxyHead, merged, proxy_similarities
from lwmfw_plugins.classifiers._kmeans import k_means, moved, seeds
from lwmfw_plugins.classifiers.cosine import Cosine, CosineOptions
from lwmfw_plugins.classifiers.proxies import Proxies, ProxiesOptions

RECIPE = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
    "objective": {"use": "cross_entropy", "over": "seen"},
}
BALANCED = {
    "memory": {"budget": "12 exemplars", "select": {"use": "random"}},
    "phases": [{"use": "balanced", "epochs": 1, "lr": 0.1}],
}
PROXIES = {"use": "proxies", "proxies": 3}
FROZEN = {"cosine": {"use": "cosine", "freeze_old": True}, "proxies": PROXIES}
FREE = {"cosine": {"use": "cosine"}, "proxies": PROXIES | {"freeze_old": False}}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def unit(vector):
    return vector / vector.square().sum().sqrt()


def watched(tables, folder, **hooks):
    """Run three steps; hooks are functions that look on."""

    class Watch:
        def __init__(self, options):
            pass

    for name, hook in hooks.items():
        setattr(Watch, name, hookimpl(hook))
    components = [Observer("watch", Watch)]
    folder.mkdir(exist_ok=True)
    return tiny_run(RECIPE | {"observers": [{"use": "watch"}]} | tables, folder, components=components).run


# similarities


@pytest.mark.parametrize(("scaling", "gamma"), [(1.0, 1.0), (3.0, 0.5)])
def test_proxies_are_their_formula(scaling, gamma):
    features, proxies = normal(4, 5), normal(3, 2, 5, seed=1)
    actual = merged(proxy_similarities(features, proxies, scaling), gamma)
    for i, c in itertools.product(range(4), range(3)):
        near = [-float((scaling * unit(features[i]) - scaling * unit(t)).square().sum()) for t in proxies[c]]
        attention = [math.exp(gamma * s) for s in near]
        expected = sum(a * s for a, s in zip(attention, near, strict=True)) / sum(attention)
        assert actual[i, c].item() == pytest.approx(expected)


def test_logits_are_eta_times_similarities():
    for head in (CosineHead(5, 2.5), ProxyHead(5, 2.5, proxies=2, scaling=1.0, gamma=1.0, learned_scale=False)):
        head.grow(3)
        features = torch.randn(4, 5, generator=seeded())
        assert_close(head(features), 2.5 * head.similarities(features))


def test_one_proxy_is_twice_a_cosine_less_two():
    features, proxies = normal(4, 5), normal(3, 1, 5, seed=1)
    cosines = torch.stack([torch.stack([unit(f) @ unit(t) for t in proxies[:, 0]]) for f in features])
    assert_close(merged(proxy_similarities(features, proxies, 1.0), 1.0), 2 * cosines - 2)


@given(st.integers(1, 5), st.floats(0, 50), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_a_merged_similarity_lies_between_mean_and_maximum(proxies, gamma, seed):
    similarities = normal(4, 3, proxies, seed=seed)
    actual = merged(similarities, gamma)
    assert (actual >= similarities.mean(2) - 1e-9).all()
    assert (actual <= similarities.amax(2) + 1e-9).all()
    assert_close(merged(similarities, 0.0), similarities.mean(2))
    assert_close(merged(similarities, 1e6), similarities.amax(2))


def test_eta_is_learned_or_fixed():
    for learned in (True, False):
        head = Proxies(ProxiesOptions(scale=2.0, learned_scale=learned)).build(4)
        assert isinstance(head.scale, nn.Parameter) is learned
        assert head.state_dict()["scale"] == 2.0
    assert isinstance(Cosine(CosineOptions()).build(4).scale, nn.Parameter)


@pytest.mark.parametrize("component", [Cosine(CosineOptions()), Proxies(ProxiesOptions())], ids=["cosine", "proxies"])
def test_growing_adds_a_parameter_and_keeps_the_others(component):
    head = component.build(4)
    head.grow(2)
    (first,) = head.weights
    value = first.detach().clone()
    head.grow(3)
    assert head.weights[0] is first
    assert torch.equal(first, value)
    assert [len(p) for p in head.weights] == [2, 3]


def test_proxies_start_with_variance_one_over_the_features():
    head = Proxies(ProxiesOptions()).build(64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head.grow(50)
    assert head.directions.shape == (50, 10, 64)
    assert float(head.directions.detach().std()) == pytest.approx(1 / 8, rel=0.02)


# what is frozen


def movement(classifier, folder):
    """(step, phase) -> how far each step's weights move in it."""
    moves, before = {}, []

    def before_step(self, model):
        before[:] = [p.detach().clone() for p in model.classifier.weights]

    def after_epoch(self, run, step):
        now = [p.detach().clone() for p in run.model.classifier.weights]
        distances = [float((a - b).abs().max()) for a, b in zip(now, before, strict=True)]
        moves[step.index, run.position.phase] = distances
        before[:] = now

    run = watched(BALANCED | {"classifier": classifier}, folder, before_step=before_step, after_epoch=after_epoch)
    assert all(p.requires_grad for p in run.model.parameters())
    return moves


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_weights_of_old_classes_move_in_other_phases_only(name, tmp_path):
    moves = movement(FROZEN[name], tmp_path)
    assert list(moves) == [(1, "main"), (2, "main"), (2, "balanced"), (3, "main"), (3, "balanced")]
    for (step, phase), (*old, new) in moves.items():
        assert len(old) == step - 1
        assert new > 0
        assert all(distance == 0 if phase == "main" else distance > 0 for distance in old)


@pytest.mark.parametrize("name", FREE)
def test_weights_that_are_not_frozen_move_in_every_phase(name, tmp_path):
    assert all(distance > 0 for distances in movement(FREE[name], tmp_path).values() for distance in distances)


# what is imprinted


def imprinted(classifier, folder):
    """Of each step but the first: mean length of old weights, new weights, and the features of each new class."""
    found = []

    def before_step(self, run, step, model):
        *old, new = [p.detach().double().clone() for p in model.classifier.weights]
        if not old:
            return
        images = run.data.train.of_classes(step.new_classes)
        features = [[unit(f) for f in run.features(images.of_classes(range(c, c + 1))).double()] for c in (2, 3)]
        length = sum(float(row.norm()) for p in old for row in p.flatten(0, -2)) / sum(p[..., 0].numel() for p in old)
        found.append((length, new, [torch.stack(f) for f in features]))
        raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        watched({"classifier": classifier}, folder, before_step=before_step)
    return found[0]


def test_an_imprinted_direction_is_its_class_mean_as_long_as_old_ones_are(tmp_path):
    length, new, features = imprinted({"use": "cosine", "imprint": True}, tmp_path)
    for row, own in zip(new, features, strict=True):
        assert_close(row, length * unit(own.mean(0)), rtol=1e-5, atol=1e-6)


def test_imprinted_proxies_are_centres_of_their_class_as_long_as_old_ones_are(tmp_path):
    length, new, features = imprinted(PROXIES, tmp_path)
    for centres, own in zip(new / length, features, strict=True):
        nearest = torch.tensor([int((centres - f).norm(dim=1).argmin()) for f in own])
        for k, centre in enumerate(centres):
            assert_close(centre, own[nearest == k].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classifier", [{"use": "cosine"}, PROXIES | {"imprint": "none"}], ids=["cosine", "proxies"])
def test_weights_are_random_where_nothing_is_imprinted(classifier, tmp_path):
    _, new, features = imprinted(classifier, tmp_path)
    for rows, own in zip(new, features, strict=True):
        assert torch.cosine_similarity(rows.view(-1, own.shape[1]), own.mean(0)[None]).max() < 0.9


# an interruption


@pytest.mark.parametrize("classifier", [{"use": "cosine", "imprint": True}, PROXIES], ids=["cosine", "proxies"])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(classifier, tmp_path):
    def three_steps(name, stops):
        def before_step(self, step):
            if step.index == 3 and stops:
                raise KeyboardInterrupt

        return watched({"classifier": classifier}, tmp_path / name, before_step=before_step)

    whole = three_steps("whole", stops=False)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        three_steps("halved", stops=True)
    resumed = three_steps("halved", stops=False)
    assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert [s.accuracy for s in resumed.results.steps] == [s.accuracy for s in whole.results.steps]


# k-means


def inertia(points, centres):
    """The summed squared distances of points to their nearest centre."""
    return sum(min(float((p - c).square().sum()) for c in centres) for p in points)


@given(st.integers(1, 6), st.integers(6, 20), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_no_iteration_makes_the_distances_larger(clusters, count, seed):
    points = normal(count, 2, seed=seed)
    centres = seeds(points, clusters, seeded(seed))
    for _ in range(5):
        before, centres = inertia(points, centres), moved(points, centres)
        assert inertia(points, centres) <= before + 1e-9


def test_the_best_of_some_seeds_is_the_best_of_all_partitions():
    points = normal(7, 2)
    partitions = itertools.product(range(3), repeat=7)
    best = min(
        sum(float((own - own.mean(0)).square().sum()) for k in range(3) if len(own := points[torch.tensor(p) == k]))
        for p in partitions
    )
    found = [inertia(points, k_means(points, 3, seeded(seed))) for seed in range(10)]
    assert min(found) == pytest.approx(best)


def test_separate_blobs_are_found_from_any_seed():
    middles = 100 * torch.eye(4, dtype=torch.float64)
    points = (middles[:, None] + normal(4, 25, 4)).flatten(0, 1)
    means = points.view(4, 25, 4).mean(1)
    for seed in range(10):
        centres = k_means(points, 4, seeded(seed))
        assert_close(centres[centres.argmax(1).argsort()], means)


def test_the_same_generator_gives_the_same_centres():
    points = normal(50, 3)
    assert torch.equal(k_means(points, 5, seeded(1)), k_means(points, 5, seeded(1)))
    assert not torch.equal(seeds(points, 5, seeded(1)), seeds(points, 5, seeded(2)))


def test_a_centre_without_points_starts_again_at_the_farthest_one():
    points = torch.tensor([[0.0], [1.0], [10.0]])
    assert moved(points, torch.tensor([[0.0], [-50.0]])).tolist() == [[pytest.approx(11 / 3)], [10.0]]


@pytest.mark.parametrize("clusters", [3, 5])
def test_few_points_are_their_own_centres(clusters):
    points = normal(3, 2)
    centres = k_means(points, clusters, seeded())
    assert centres.shape == (clusters, 2)
    assert inertia(points, centres) == pytest.approx(0)


def test_equal_points_are_no_obstacle():
    points = torch.ones(6, 2)
    assert torch.equal(k_means(points, 3, seeded()), torch.ones(3, 2))
