"""Herding and closest: against slow references, and what a selection must not depend on."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.testing import assert_close

from lwmfw import Observer, hookimpl
from lwmfw.testing import tiny_run
from lwmfw_plugins.selectors.closest import nearest_to_mean
from lwmfw_plugins.selectors.herding import herd, herd_as_coded

SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}


def features_of_one_class(seed, n=12, dimensions=5):
    rng = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, dimensions, dtype=torch.float64, generator=rng))


def reference_herding(features, count):
    """iCaRL's algorithm 4 as it is printed, image by image."""
    mu = [sum(column) / len(features) for column in zip(*features, strict=True)]
    chosen, total = [], [0] * len(mu)
    for k in range(1, count + 1):
        distances = {
            i: sum((m - (t + x) / k) ** 2 for m, t, x in zip(mu, total, features[i], strict=True))
            for i in range(len(features))
            if i not in chosen
        }
        chosen.append(min(distances, key=distances.get))
        total = [t + x for t, x in zip(total, features[chosen[-1]], strict=True)]
    return chosen


def reference_herding_as_coded(features, count):
    """The loop of iCaRL's authors, image by image; what it does not find is sorted by its product with the mean."""
    mu = [sum(column) / len(features) for column in zip(*features, strict=True)]

    def best_first(w):
        return sorted(range(len(features)), key=lambda i: -sum(a * b for a, b in zip(w, features[i], strict=True)))

    w, chosen, rounds = mu, [], 0
    while len(chosen) < count and rounds < 1000:
        best = best_first(w)[0]
        chosen += [best] if best not in chosen else []
        w = [a + m - x for a, m, x in zip(w, mu, features[best], strict=True)]
        rounds += 1
    return chosen + [i for i in best_first(mu) if i not in chosen][: count - len(chosen)]


@given(seed=st.integers(0, 10**6), count=st.integers(0, 12))
def test_herding_is_algorithm_4(seed, count):
    features = features_of_one_class(seed)
    assert herd(features, count).tolist() == reference_herding(features.tolist(), count)


@given(rows=st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=8))
def test_of_images_that_serve_as_well_the_first_is_taken(rows):
    exact = [[Fraction(x) for x in row] for row in rows]
    chosen = herd(torch.tensor(rows, dtype=torch.float64), len(rows))
    assert chosen.tolist() == reference_herding(exact, len(rows))


@given(seed=st.integers(0, 10**6), count=st.integers(0, 12))
def test_herding_as_coded_is_the_authors_loop(seed, count):
    features = features_of_one_class(seed)
    assert herd_as_coded(features, count).tolist() == reference_herding_as_coded(features.tolist(), count)


def test_the_two_forms_of_herding_differ():
    features = features_of_one_class(0)
    assert herd(features, 6).tolist() != herd_as_coded(features, 6).tolist()


def test_herding_as_coded_fills_up_what_a_thousand_rounds_do_not_find():
    # no w is ever larger along the short vectors than along the long ones around them
    features = torch.tensor([[1, 0], [-0.25, 0], [-0.9, 0], [0.25, 0]], dtype=torch.float64)
    chosen = herd_as_coded(features, 4).tolist()
    assert chosen == reference_herding_as_coded(features.tolist(), 4)
    assert chosen == [0, 2, 3, 1]


@pytest.mark.parametrize("rank", [herd, herd_as_coded, nearest_to_mean])
@given(seed=st.integers(0, 10**6))
def test_the_first_of_many_are_the_selection_of_few(rank, seed):
    features = features_of_one_class(seed)
    everything = rank(features, 12)
    assert sorted(everything.tolist()) == list(range(12))
    for count in range(12):
        assert_close(rank(features, count), everything[:count])  # types too


@given(seed=st.integers(0, 10**6))
def test_the_closest_are_nearest_to_the_mean(seed):
    features = features_of_one_class(seed)
    rows = features.tolist()
    mu = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    distances = [sum((x - m) ** 2 for x, m in zip(row, mu, strict=True)) for row in rows]
    assert nearest_to_mean(features, 5).tolist() == sorted(range(12), key=distances.__getitem__)[:5]


@pytest.mark.parametrize(
    ("select", "rank"),
    [
        ({"use": "herding"}, herd),
        ({"use": "herding", "form": "code"}, herd_as_coded),
        ({"use": "closest"}, nearest_to_mean),
    ],
    ids=["herding", "as coded", "closest"],
)
def test_new_classes_are_ranked_and_old_ones_cut_short(select, rank, tmp_path):
    recipe = SEEN | {"memory": {"budget": "16 exemplars", "select": select, "codec": {"use": "raw"}}}
    run = tiny_run(recipe, tmp_path).run
    kept, train = run.memory.images(), run.data.train
    assert kept.labels.bincount().tolist() == [4] * 4
    for label in (2, 3):
        images = train.of_classes(range(label, label + 1))
        expected = rank(normalize(run.features(images).double()), 4)
        assert torch.equal(kept.pixels[kept.labels == label], images.pixels[expected])


def test_old_classes_keep_their_first_exemplars(tmp_path):
    held = []

    class Watch:
        """Notes what is held after each step."""

        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, run):
            held.append(run.memory.images())

    components = [Observer("watch", Watch)]
    memory = {"budget": "16 exemplars", "select": {"use": "herding"}, "codec": {"use": "raw"}}
    tiny_run(SEEN | {"memory": memory, "observers": [{"use": "watch"}]}, tmp_path, components=components)
    before, after = held
    for label in (0, 1):
        assert torch.equal(after.pixels[after.labels == label], before.pixels[before.labels == label][:4])
