"""Read-outs from sums: each against a slow obvious reference, and that learning piece by piece is learning at once."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize, one_hot
from torch.testing import assert_close

from lwmfw import UserError
from lwmfw.engine.evaluate import digest
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.readouts._fitted import SumsOptions
from lwmfw_plugins.readouts._sums import LEVELS, Sums, generalised_cross_validation, linear_map, rounded, scaled
from lwmfw_plugins.readouts.fecam import Fecam, FecamOptions, correlations
from lwmfw_plugins.readouts.lda import LdaOptions, LinearDiscriminant
from lwmfw_plugins.readouts.ncm import NearestClassMean
from lwmfw_plugins.readouts.ridge import Ridge, RidgeOptions

CLASSES, WIDTH = 5, 7
EVERY = {
    "ncm": lambda: NearestClassMean(SumsOptions()),
    "lda": lambda: LinearDiscriminant(LdaOptions()),
    "ridge": lambda: Ridge(RidgeOptions()),
    "lifted": lambda: Ridge(RidgeOptions(lift=12)),
    "fecam": lambda: Fecam(FecamOptions()),
    "fecam-class": lambda: Fecam(FecamOptions(covariance="class")),
}


def images(count=60, seed=0):
    """Features (N, D) that are not negative, and labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.rand(CLASSES, WIDTH, generator=rng)
    return (centres[labels] + 0.3 * torch.rand(count, WIDTH, generator=rng)), labels


def fitted(make, features, labels, pieces):
    """A read-out that has taken images in piece by piece."""
    readout = make()
    for piece in pieces:
        more = Sums.of_images(
            readout.hidden(features[piece]), labels[piece], int(labels[piece].max()) + 1, apart=readout.apart
        )
        readout.add(more.state(), range(len(more.counts)), 1)
    return readout


def at_once(make, features, labels):
    return fitted(make, features, labels, [torch.arange(len(labels))])


@pytest.mark.parametrize("name", EVERY)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_any_order_and_partition_gives_the_same_bits(name, seed, parts):
    features, labels = images()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    piecewise = fitted(EVERY[name], features, labels, order.chunk(parts))
    whole = at_once(EVERY[name], features, labels)
    assert digest(piecewise.state()) == digest(whole.state())
    assert torch.equal(piecewise.scores(features), whole.scores(features))


def test_without_rounding_the_bits_depend_on_the_order():
    features, labels = images(600)
    found = set()
    for seed in range(4):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        sums = Sums.none(WIDTH)
        for piece in order.chunk(7):
            sums.add(Sums.of_images(normalize(features[piece].double()), labels[piece], CLASSES), range(CLASSES), 1)
        found.add(digest(sums.state()))
    assert len(found) > 1


def test_what_an_average_running_over_steps_makes_depends_on_their_order():
    features, labels = images()
    h, found = rounded(features), set()
    for order in (range(CLASSES), reversed(range(CLASSES))):
        mean = torch.zeros(WIDTH, dtype=torch.float64)
        for label in order:
            mean = 0.5 * mean + 0.5 * h[labels == label].mean(0)
        found.add(digest({"mean": mean}))
    assert len(found) == 2


def test_rounding_is_of_a_feature_alone_and_finer_than_a_thousandth():
    features, _ = images()
    h = rounded(features)
    assert torch.equal(h, h.round())
    assert torch.equal(rounded(features[3:4]), h[3:4])
    assert torch.equal(rounded(features * 5), h)
    assert_close(h / LEVELS, normalize(features.double()), rtol=0, atol=0.5 / LEVELS + 1e-12)


def test_the_nearest_class_mean():
    features, labels = images()
    h = rounded(features)
    means = torch.stack([h[labels == label].mean(0) for label in range(CLASSES)])
    nearest = torch.stack([torch.cosine_similarity(each.double()[None], means) for each in features]).argmax(1)
    assert torch.equal(at_once(EVERY["ncm"], features, labels).scores(features).argmax(1), nearest)


def test_the_pooled_covariance_is_that_of_deviations_from_class_means():
    features, labels = images()
    h = rounded(features)
    expected = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for label in range(CLASSES):
        own = h[labels == label]
        for each in own - own.mean(0):
            expected += each[:, None] * each
    sums = at_once(EVERY["lda"], features, labels).sums
    assert_close(sums.covariance, expected / len(labels), rtol=1e-9, atol=1e-6)


def test_the_linear_discriminant_is_the_nearest_mean_in_the_mahalanobis_distance():
    features, labels = images()
    readout = at_once(EVERY["lda"], features, labels)
    shared = readout.sums.covariance
    shrunk = 0.9 * shared + 0.1 * shared.diagonal().mean() * torch.eye(WIDTH, dtype=torch.float64)
    inverse, means = torch.linalg.inv(shrunk), readout.sums.means
    distances = torch.stack([torch.stack([(z - m) @ inverse @ (z - m) for m in means]) for z in scaled(features)])
    assert torch.equal(readout.scores(features).argmax(1), distances.argmin(1))


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_ridge_is_least_squares_on_one_hot_labels(penalty):
    features, labels = images()
    h, targets = rounded(features) / LEVELS, one_hot(labels).double()
    stacked = torch.cat([h, penalty**0.5 * torch.eye(WIDTH, dtype=torch.float64)])
    weights = torch.linalg.lstsq(stacked, torch.cat([targets, torch.zeros(WIDTH, CLASSES)])).solution
    readout = at_once(lambda: Ridge(RidgeOptions(penalty=penalty)), features, labels)
    assert_close(readout.scores(features), (scaled(features) / LEVELS @ weights).float(), rtol=1e-4, atol=1e-5)


def test_cross_validation_from_the_sums_is_the_formula_with_the_hat_matrix():
    features, labels = images()
    h, targets = rounded(features) / LEVELS, one_hot(labels).double()
    grid, found = torch.logspace(-4, 3, 29, dtype=torch.float64), []
    for penalty in grid:
        hat = h @ torch.linalg.inv(h.T @ h + penalty * torch.eye(WIDTH, dtype=torch.float64)) @ h.T
        residual = (targets - hat @ targets).square().sum()
        found.append(float(len(h) * residual / (len(h) - hat.trace()) ** 2))
    chosen = generalised_cross_validation(h.T @ h, h.T @ targets, len(h), grid)
    assert chosen == float(grid[torch.tensor(found).argmin()])


def test_fecam_shrinks_and_takes_correlations():
    matrix = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    # variances 4 + 3 and 2 + 3, covariance 1 + 1
    expected = torch.tensor([[1.0, 2 / 35**0.5], [2 / 35**0.5, 1.0]], dtype=torch.float64)
    assert_close(correlations(matrix, 1.0, 1.0), expected)


def test_fecam_decides_by_the_distance():
    features, labels = images()
    readout = at_once(EVERY["fecam"], features, labels)
    z = readout.unrounded(features) / LEVELS
    means = readout.sums.means / LEVELS
    inverse = torch.linalg.inv(correlations(readout.sums.covariance, 1.0, 1.0))
    distances = torch.stack([torch.stack([(each - m) @ inverse @ (each - m) for m in means]) for each in z])
    assert torch.equal(readout.scores(features).argmax(1), distances.argmin(1))


def test_fecam_decides_by_the_covariance_of_each_class():
    features, labels = images()
    readout = at_once(EVERY["fecam-class"], features, labels)
    h, z, distances = readout.hidden(features) / LEVELS, readout.unrounded(features) / LEVELS, []
    for label in range(CLASSES):
        own = h[labels == label]
        inverse = torch.linalg.inv(correlations(torch.cov(own.T, correction=0), 1.0, 1.0))
        distances.append([float((each - own.mean(0)) @ inverse @ (each - own.mean(0))) for each in z])
    assert_close(readout.scores(features), -0.5 * torch.tensor(distances).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_added_can_be_taken_out_to_the_bit(name):
    features, labels = images()
    readout, rest = at_once(EVERY[name], features, labels), labels < 3
    before = at_once(EVERY[name], features[rest], labels[rest])
    taken = fitted(EVERY[name], features, labels, [(~rest).nonzero().flatten()])
    readout.add(taken.state(), range(CLASSES), -1)
    assert digest({k: v[..., :3] for k, v in readout.sums.state().items() if k in ("moments", "counts")}) == digest(
        {k: v for k, v in before.sums.state().items() if k in ("moments", "counts")}
    )
    assert torch.equal(readout.sums.gram, before.sums.gram)
    scores = readout.scores(features)
    assert torch.equal(scores[:, :3], before.scores(features))
    assert (scores[:, 3:] == -torch.inf).all()


@pytest.mark.parametrize("name", EVERY)
def test_two_that_learned_apart_are_one_that_learned_both(name):
    features, labels = images()
    parts = [(labels < 3).nonzero().flatten(), (labels > 2).nonzero().flatten()]
    low, high = (fitted(EVERY[name], features, labels % 3, [part]) for part in parts)
    low.add(high.state(), [3, 4], 1)
    whole = at_once(EVERY[name], features, labels)
    assert digest(low.state()) == digest(whole.state())


def test_a_class_of_one_image_and_classes_of_one_each_are_taken():
    features = images()[0][:CLASSES]
    for name, make in EVERY.items():
        scores = at_once(make, features, torch.arange(CLASSES)).scores(features)
        assert scores.isfinite().all(), name
        if name != "lifted":  # a cross-validation of more features than images says nothing
            assert torch.equal(scores.argmax(1), torch.arange(CLASSES)), name


def test_a_linear_map_is_least_squares_that_leaves_unseen_directions_alone():
    rng = torch.Generator().manual_seed(0)
    before, true = torch.randn(40, 6, generator=rng).double(), torch.randn(6, 6, generator=rng).double()
    before[:, 5] = 0  # a direction that no image shows
    found = linear_map(before, before @ true, 1e-12)
    expected = torch.linalg.lstsq(before[:, :5], before @ true).solution
    assert_close(found[:5], expected, rtol=1e-6, atol=1e-6)
    assert_close(found[5], torch.eye(6).double()[5])


def test_sums_go_through_a_map_as_their_images_would():
    features, labels = images()
    linear = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    h = rounded(features)
    moved = Sums.of_images(h, labels, CLASSES, apart=True).through(linear)
    expected = Sums.of_images(h @ linear, labels, CLASSES, apart=True)
    for name, value in expected.state().items():
        assert_close(moved.state()[name], value, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_state_that_is_restored_scores_the_same(name):
    features, labels = images()
    readout, other = at_once(EVERY[name], features, labels), EVERY[name]()
    other.restore(readout.state())
    assert torch.equal(other.scores(features), readout.scores(features))
    assert EVERY[name]().state() == {}


READOUTS = [{"use": name} for name in ("cnn", "ncm", "lda", "ridge", "fecam")] + [
    {"use": "ridge", "as": "lifted", "lift": 9}
]
THREE = {"data": {"use": "synthetic", "classes": 6}, "scenario": {"first": 2, "increment": 2}, "readouts": READOUTS}


def test_all_decide_side_by_side_and_say_what_they_keep(tmp_path):
    run = tiny_run(THREE | {"penalties": [{"use": "freeze"}]}, tmp_path)
    step = json.loads((run.path / "results.json").read_text())["steps"][-1]
    names = ["cnn", "ncm", "lda", "ridge", "fecam", "lifted"]
    assert list(step["accuracy"]) == names
    assert step["readout_bytes"]["cnn"] == 0
    assert step["readout_bytes"]["lifted"] == 8 * (9 * 9 + 9 * 6 + 6)
    assert "cnn" not in step["readouts"]
    assert step["readouts"]["ridge"]["lambda"] > 0
    for name in names[1:]:
        certificate = step["readouts"][name]
        assert certificate["exact"]
        assert len(certificate["statistics"]) == len(certificate["backbone"]) == 64
    same = step["readouts"]["ncm"]["statistics"]
    assert step["readouts"]["lda"]["statistics"] == same != step["readouts"]["lifted"]["statistics"]


def test_where_the_backbone_moves_nothing_is_exact(tmp_path):
    run = tiny_run(THREE, tmp_path)
    first, second, third = (step.readouts["ncm"] for step in run.results.steps)
    assert first["exact"]
    assert not second["exact"]
    assert not third["exact"]


def test_the_old_key_is_refused_with_what_to_write(tmp_path):
    recipe = tiny_recipe({"evaluation": {"classifiers": ["cnn", "nme"]}}, tmp_path)
    with pytest.raises(UserError, match=r'tiny\.toml:\d+: evaluation: .*; write \[\[readouts\]\] with use = "cnn"'):
        load_recipe(recipe)
