"""som: a map of features that learns where images are novel, against one image after another in float64."""

import math

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot
from torch.testing import assert_close

from lwmfw.testing import check, tiny_run
from lwmfw_plugins.readouts import _som as som
from lwmfw_plugins.readouts.som import Readout, SelfOrganisingMap, SomOptions

SIDE, WIDTH, CLASSES = 6, 5, 3
SMALL = {"use": "som", "side": 5, "epochs": 2, "radius": 2.0}
FROZEN = THREE_STEPS | {"penalties": [{"use": "freeze"}], "readouts": [{"use": "cnn"}, SMALL]}


def drawn(count, seed=0, width=WIDTH):
    """Features, prototypes, weights and labels in float64."""
    rng = torch.Generator().manual_seed(seed)
    features, prototypes, weights = (
        torch.rand(*shape, generator=rng, dtype=torch.float64)
        for shape in ((count, width), (SIDE**2, width), (CLASSES, SIDE**2))
    )
    return features, prototypes, weights, torch.randint(CLASSES, (count,), generator=rng)


def grid_of(side=SIDE):
    return som.grid(side).double()


def every(count):
    return torch.ones(count, dtype=torch.bool)


def one_by_one(prototypes, image, rate, radius):
    """Kohonen's rule, a prototype at a time, and how far each lies from the winner on the grid."""
    apart = [float(((image - prototype) ** 2).sum()) for prototype in prototypes]
    row, column = divmod(apart.index(min(apart)), SIDE)
    moved, away = prototypes.clone(), []
    for number, prototype in enumerate(prototypes):
        away.append(math.hypot(number // SIDE - row, number % SIDE - column))
        pull = math.exp(-(away[-1] ** 2) / (2 * radius**2)) if away[-1] <= som.REACH * radius else 0.0
        moved[number] = prototype + rate * pull * (image - prototype)
    return moved, torch.tensor(away)


@pytest.mark.parametrize(("rate", "radius"), [(0.5, 2.0), (0.05, 0.5), (1.0, 1.0)])
def test_a_batch_of_one_is_kohonens_rule(rate, radius):
    features, prototypes, _, _ = drawn(4)
    for image in features:
        found = som.adapted(prototypes, image[None], grid_of(), rate, radius, every(1))
        assert_close(found, one_by_one(prototypes, image, rate, radius)[0])


@pytest.mark.parametrize("radius", [0.4, 1.0])
def test_only_neighbours_of_the_winner_move(radius):
    features, prototypes, _, _ = drawn(1)
    away = one_by_one(prototypes, features[0], 0.5, radius)[1]
    moved = (som.adapted(prototypes, features, grid_of(), 0.5, radius, every(1)) != prototypes).any(1)
    assert torch.equal(moved, away <= som.REACH * radius)
    assert 0 < moved.sum() < SIDE**2


@given(count=st.integers(1, 6), rate=st.floats(0.01, 1), radius=st.floats(0.4, 4))
@settings(max_examples=20, deadline=None)
def test_a_batch_of_one_image_many_times_goes_as_far_as_they_would_in_turn(count, rate, radius):
    features, prototypes, _, _ = drawn(1)
    prototypes[0] = features[0]  # the winner stays the winner
    in_turn = prototypes
    for _ in range(count):
        in_turn = som.adapted(in_turn, features, grid_of(), rate, radius, every(1))
    assert_close(som.adapted(prototypes, features.expand(count, -1), grid_of(), rate, radius, every(count)), in_turn)


@given(seed=st.integers(0, 1000), rate=st.floats(0.01, 1), radius=st.floats(0.4, 4))
@settings(max_examples=20, deadline=None)
def test_the_order_of_a_batch_does_not_matter_and_no_prototype_leaves_the_images_and_its_place(seed, rate, radius):
    features, prototypes, _, _ = drawn(9, seed)
    found = som.adapted(prototypes, features, grid_of(), rate, radius, every(9))
    assert_close(som.adapted(prototypes, features.flip(0), grid_of(), rate, radius, every(9)), found)
    least = torch.minimum(features.amin(0), prototypes)
    most = torch.maximum(features.amax(0), prototypes)
    assert ((found >= least - 1e-12) & (found <= most + 1e-12)).all()


def test_the_activity_is_a_gaussian_of_the_distance_with_the_sum_one():
    features, prototypes, _, _ = drawn(4)
    expected = torch.zeros(4, SIDE**2, dtype=torch.float64)
    for row, image in enumerate(features):
        for column, prototype in enumerate(prototypes):
            expected[row, column] = math.exp(-float(((image - prototype) ** 2).sum()) / (2 * 0.3**2))
        expected[row] /= expected[row].sum()
    assert_close(som.activity(features, prototypes, 0.3), expected)


def test_a_batch_of_one_is_the_delta_rule():
    features, prototypes, weights, labels = drawn(5)
    for image, label in zip(som.activity(features, prototypes, 0.3), labels, strict=True):
        expected = weights.clone()
        for row in range(CLASSES):
            missed = float(row == label) - sum(float(w) * float(z) for w, z in zip(weights[row], image, strict=True))
            for column in range(SIDE**2):
                expected[row, column] += 0.2 * missed * image[column]
        assert_close(som.answered(weights, image[None], label[None], 0.2, every(1)), expected)


@given(seed=st.integers(0, 1000), rate=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_no_rate_makes_the_answers_of_a_batch_worse(seed, rate):
    features, prototypes, weights, labels = drawn(60, seed)
    active = som.activity(features, prototypes, 0.1)

    def missed(answers):
        return float((one_hot(labels, CLASSES) - active @ answers.T).square().sum())

    assert missed(som.answered(weights, active, labels, rate, every(60))) <= missed(weights) + 1e-9


def test_images_that_are_not_novel_change_nothing():
    features, prototypes, weights, labels = drawn(7)
    none, active = ~every(7), som.activity(features, prototypes, 0.3)
    assert torch.equal(som.adapted(prototypes, features, grid_of(), 0.5, 2.0, none), prototypes)
    assert torch.equal(som.answered(weights, active, labels, 0.5, none), weights)
    some = torch.arange(7) < 3
    alone = som.adapted(prototypes, features[:3], grid_of(), 0.5, 2.0, every(3))
    assert_close(som.adapted(prototypes, features, grid_of(), 0.5, 2.0, some), alone)
    alone = som.answered(weights, active[:3], labels[:3], 0.5, every(3))
    assert_close(som.answered(weights, active, labels, 0.5, some), alone)


def test_novel_is_what_is_answered_wrongly_or_without_certainty():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.45, 0.0], [0.2, 0.9, 0.1], [0.4, 0.4, 0.0]])
    labels = torch.zeros(4, dtype=torch.int64)
    assert som.novel(scores, labels, 0.3).tolist() == [False, True, True, True]
    assert som.novel(scores, labels, 0.0).tolist() == [False, False, True, True]
    assert som.novel(scores[:, :1], labels, 0.45).tolist() == [False, False, True, True]  # a class alone leads 0
    assert som.novel(scores - 1, labels, 0.0).tolist() == [True] * 4


def test_a_large_map_takes_no_memory_of_its_size_squared():
    places, winners = som.grid(200), torch.tensor([0, 200 * 200 - 1])
    pull = som.neighbourhood(winners, places, 1.0)
    assert pull.shape == (2, 40_000)
    for row, corner in zip(pull.view(2, 200, 200), [(0, 0), (199, 199)], strict=True):
        assert row[corner] == 1
        assert row[abs(corner[0] - 1), corner[1]] == pytest.approx(math.exp(-0.5))
        assert row[abs(corner[0] - 3), corner[1]] > 0 == row[abs(corner[0] - 4), corner[1]]


def test_how_many_images_are_held_against_the_map_at_once_changes_nothing(monkeypatch):
    features = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for at_once in (2**24, 7 * 64, 1):
        monkeypatch.setattr(som, "_AT_ONCE", at_once)
        readout, readout.prototypes = laid_out(features, side=8, epochs=1, radius=2.0)
        readout.weights = torch.rand(3, 64, generator=torch.Generator().manual_seed(1))
        found.append((readout.facts["width"], readout.scores(features), readout.scores(features[:0]).shape))
    for width, scores, of_none in found[1:]:
        assert width == pytest.approx(found[0][0])
        assert_close(scores, found[0][1])
        assert of_none == (0, 3)


def laid_out(features, **said):
    readout = SelfOrganisingMap(SomOptions(**said))
    rng = torch.Generator().manual_seed(0)
    return readout, readout._laid_out(features, grid_of(said["side"]).float(), rng)


def beside_on_the_grid(side):
    return (grid_of(side)[:, None] - grid_of(side)).abs().sum(2) == 1


@pytest.mark.parametrize("shape", ["ring", "plane"])
def test_neighbours_on_the_map_are_nearer_to_each_other_than_others(shape):
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1500, generator=rng)
    angle = 2 * math.pi * a
    features = torch.stack([angle.cos(), angle.sin(), 0 * b] if shape == "ring" else [a, b, 0 * b], 1)
    readout, prototypes = laid_out(features, side=8, epochs=5, radius=4.0)
    apart = som.distances(prototypes, prototypes).sqrt()
    beside, pairs = beside_on_the_grid(8), ~torch.eye(64, dtype=torch.bool)
    assert apart[beside].mean() < 0.4 * apart[pairs].mean()
    nearest = som.distances(features, prototypes).amin(1).mean().sqrt()
    assert nearest < 0.25 * apart[pairs].mean()  # it has spread over the images
    assert readout.facts["width"] == pytest.approx(0.35 * float(nearest))


def test_a_map_as_drawn_has_no_such_order():
    features = torch.rand(1500, 3, generator=torch.Generator().manual_seed(0))
    apart = som.distances(features[:64], features[:64]).sqrt()
    assert apart[beside_on_the_grid(8)].mean() > 0.8 * apart[~torch.eye(64, dtype=torch.bool)].mean()


class Shown:
    """As much of a run and of its images as a read-out asks for."""

    def __init__(self, labels):
        rng = torch.Generator().manual_seed(0)
        centres = torch.randn(4, 8, generator=rng)
        self.labels = torch.tensor(labels).repeat(150)
        self.seen_classes = range(max(labels) + 1)
        self.content = centres[self.labels] + 0.3 * torch.randn(len(self.labels), 8, generator=rng)

    def features(self, data):
        return data.content


def test_it_learns_new_groups_and_keeps_those_that_they_are_far_from():
    readout, rng = SelfOrganisingMap(SomOptions(side=10, radius=4.0, answer_rate=0.1)), torch.Generator().manual_seed(0)
    first, second = Shown([0, 1]), Shown([2, 3])
    for shown in (first, second):
        readout.after_training(shown, shown, shown, rng)
        assert readout.scores(shown.content).shape == (300, len(shown.seen_classes))
    for shown in (first, second):
        assert (readout.scores(shown.content).argmax(1) == shown.labels).float().mean() > 0.9


def test_a_class_that_came_alone_is_known_when_others_have_come():
    readout, rng = SelfOrganisingMap(SomOptions(side=10, radius=4.0, answer_rate=0.1)), torch.Generator().manual_seed(0)
    alone, others = Shown([0]), Shown([1, 2])
    for shown in (alone, others):
        readout.after_training(shown, shown, shown, rng)
    assert (readout.scores(alone.content).argmax(1) == 0).float().mean() > 0.9


def test_a_map_that_knows_its_images_is_left_to_the_bit_by_more_of_them():
    readout, rng, shown = (
        SelfOrganisingMap(SomOptions(side=4, radius=2.0, margin=0.0)),
        torch.Generator(),
        Shown([0, 1]),
    )
    readout.after_training(shown, shown, shown, rng)
    before = readout.state()
    readout.after_training(shown, shown, shown, rng)
    after = readout.state()
    assert after["novel"] == 0 < before["novel"]
    assert torch.equal(after["prototypes"], before["prototypes"])
    assert torch.equal(after["weights"], before["weights"])


def test_a_run_says_what_it_keeps_and_how_much_was_novel(tmp_path):
    run = tiny_run(FROZEN, tmp_path)
    step = run.results.steps[-1]
    assert list(step.accuracy) == ["cnn", "som"]
    features = run.run.features(run.run.data.test)
    found = run.run.assembly.of_kind("readout")["som"].method("scores")(features)
    assert found.shape == (len(features), 6)
    assert found.dtype == torch.float32
    assert step.readout_bytes["som"] == 4 * 25 * (features.shape[1] + 6)
    said = step.readouts["som"]
    assert "exact" not in said
    assert 0 < said["novel"] <= 1
    assert said["width"] == run.results.steps[0].readouts["som"]["width"]


def test_a_first_step_of_one_class_is_learned(tmp_path):
    one = FROZEN | {"scenario": {"first": 1, "increment": 1}, "readouts": [SMALL | {"epochs": 20}]}
    run = tiny_run(one | {"data": FROZEN["data"] | {"classes": 2}}, tmp_path).run
    test, readout = run.data.test, run.assembly.of_kind("readout")["som"]
    right = readout.method("scores")(run.features(test)).argmax(1) == test.labels
    assert right[test.labels == 0].float().mean() > 0.5
    assert run.results.steps[0].readouts["som"]["novel"] > 0


def test_exemplars_are_learned_from_again(tmp_path):
    memory = {"budget": "4 per class", "select": {"use": "random"}}
    recipe = FROZEN | {"memory": memory, "objective": {"use": "cross_entropy", "over": "seen"}}
    found = {}
    for name, more in (("with", recipe), ("without", FROZEN)):
        (tmp_path / name).mkdir()
        found[name] = tiny_run(more, tmp_path / name).run.assembly.of_kind("readout")["som"].method("state")()
    assert not torch.equal(found["with"]["weights"], found["without"]["weights"])


def test_a_run_that_was_interrupted_ends_with_the_same_map(tmp_path):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    whole = tiny_run(FROZEN, tmp_path / "whole").results.steps[-1]
    resumed = interrupted(tmp_path / "resumed", FROZEN, after=2).results.steps[-1]
    assert resumed.readouts == whole.readouts
    assert resumed.accuracy == whole.accuracy


def test_before_training_it_keeps_nothing():
    readout = SelfOrganisingMap(SomOptions())
    assert readout.state() == {}
    readout.restore({})
    assert readout.state() == {}


def test_it_keeps_the_contract_of_read_outs():
    check(Readout("som", SelfOrganisingMap, SomOptions), side=4, epochs=1)
