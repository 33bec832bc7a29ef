"""muc: its formulas against slow loops in float64, what side classifiers are like, and what a run makes of them."""

import copy
from itertools import combinations

import pytest
import torch
from helpers.pictures import LAYOUTS
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import lwmfw
from lwmfw import Observer, hookimpl
from lwmfw.errors import UserError
from lwmfw.model.growing import model_bytes
from lwmfw.record import checkpoint
from lwmfw.testing import outputs_pair, penalty_terms, tiny_run
from lwmfw_plugins.penalties.l_d import softmax_distillation
from lwmfw_plugins.penalties.muc import Muc, MucOptions, side_distillation
from lwmfw_plugins.penalties.muc._side import SideHeads, discrepancy, fit, in_form, side_loss

OTHER = {"use": "synthetic", "classes": 5, "seed": 7}
QUICK = {"use": "muc", "side_epochs": 2, "other": OTHER}
MUC = THREE_STEPS | {"objective": {"use": "cross_entropy"}, "penalties": [QUICK]}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=rng(seed))


def soft_cross_entropy(new, old, temperature):
    """Of one image and classifier, class by class."""
    p, q = (old / temperature).softmax(0), (new / temperature).softmax(0)
    return -sum(p[c] * q[c].log() for c in range(len(p)))


def differing(found):
    """The discrepancy, pair by pair, image by image, class by class."""
    images, heads, classes = found.shape
    total = 0.0
    for i, j in combinations(range(heads), 2):
        for image in range(images):
            ours, theirs = found[image, i].softmax(0), found[image, j].softmax(0)
            total += sum(abs(ours[c] - theirs[c]) for c in range(classes)) / (images * classes)
    return torch.as_tensor(total, dtype=found.dtype)


@pytest.mark.parametrize("heads", [1, 2, 3, 5])
def test_the_discrepancy_is_its_formula(heads):
    found = logits(6, heads, 4)
    assert_close(discrepancy(found), differing(found))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_the_discrepancy_is_at_most_2_over_n_a_pair_and_zero_for_equal_heads(heads, classes, seed):
    found = 5 * logits(4, heads, classes, seed=seed)
    assert 0 < discrepancy(found) <= heads * (heads - 1) / classes
    assert discrepancy(found[:, :1].expand(-1, heads, -1)) == 0


def test_side_classifiers_are_trained_with_the_sum_of_cross_entropies_less_the_discrepancy():
    own, other, labels = logits(6, 3, 4), logits(5, 3, 4, seed=1), torch.tensor([3, 0, 1, 1, 2, 0])
    expected = -0.7 * differing(other)
    for head in range(3):
        expected = expected - sum(own[i, head].log_softmax(0)[labels[i]] for i in range(6)) / 6
    assert_close(side_loss(own, labels, other, 0.7), expected)


def test_side_heads_are_linear_and_a_function_of_their_generator():
    state = torch.random.get_rng_state()
    heads = SideHeads.drawn(3, 4, 6, rng(1))
    features = torch.randn(5, 6, generator=rng())
    for head in range(3):
        assert_close(heads(features)[:, head], features @ heads.weight[head].T + heads.bias[head])
    assert torch.equal(heads.weight, SideHeads.drawn(3, 4, 6, rng(1)).weight)
    assert not torch.equal(heads.weight[0], heads.weight[1])
    assert 0.5 * 6**-0.5 < heads.weight.abs().max() < 6**-0.5
    assert torch.equal(state, torch.random.get_rng_state())


def clusters(count, classes, seed):
    """Features around a point per class, and their labels."""
    centres = 2 * torch.randn(classes, 8, generator=rng(99))
    labels = torch.arange(count) % classes
    return (centres[labels] + 0.3 * torch.randn(count, 8, generator=rng(seed))).relu(), labels


def fitted(weight, seed=0, epochs=30):
    features, labels = clusters(256, 4, seed=1)
    other = torch.randn(200, 8, generator=rng(2)).relu()
    heads = SideHeads.drawn(3, 4, 8, rng(seed))
    fit(heads, features, labels, other, epochs=epochs, lr=0.1, weight=weight, rng=rng(seed))
    return heads, features, labels, other


def test_side_classifiers_agree_on_their_images_and_differ_on_others():
    heads, features, labels, other = fitted(weight=1.0)
    alike = fitted(weight=0.0)[0]
    right = (heads(features).argmax(2) == labels[:, None]).float().mean(0)
    assert right.min() > 0.95
    assert discrepancy(heads(other)) > 3 * discrepancy(alike(other))
    assert discrepancy(heads(other)) > 2 * discrepancy(heads(features))


def test_training_side_classifiers_is_a_function_of_its_generator():
    ones, others = (fitted(1.0, seed, epochs=1)[0] for seed in (3, 3))
    assert torch.equal(ones.weight, others.weight)
    assert not torch.equal(ones.weight, fitted(1.0, 4, epochs=1)[0].weight)


def test_their_rate_falls_to_a_tenth_at_half_three_quarters_and_seven_eighths(monkeypatch):
    rates = []

    class Watched(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    fitted(1.0, epochs=8)
    assert_close(rates[::2], [0.1] * 4 + [0.01] * 2 + [0.001] + [0.0001])
    rates.clear()
    fitted(1.0, epochs=1)
    assert rates == [0.1, 0.1]


def test_other_images_take_the_channels_and_the_size_of_the_runs():
    colours = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=rng())
    assert torch.equal(in_form(colours, 3, 8), colours)
    grey = in_form(colours, 1, 8)
    assert torch.equal(grey, colours.float().mean(1, keepdim=True).round().to(torch.uint8))
    assert torch.equal(in_form(grey, 3, 8), grey.repeat(1, 3, 1, 1))
    for size in (4, 20):
        shown = in_form(colours, 3, size)
        assert shown.shape == (3, 3, size, size)
        assert shown.dtype == torch.uint8
        assert_close(shown.float().mean((2, 3)), colours.float().mean((2, 3)), rtol=0, atol=12)
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(1, 1, 16, 16)
    assert in_form(ramp, 1, 8)[0, 0, 3, 1:-1].tolist() == [25, 45, 65, 85, 105, 125]


def test_how_many_images_are_formed_at_a_time_does_not_matter(monkeypatch):
    colours = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8, generator=rng())
    whole = in_form(colours, 1, 9)
    monkeypatch.setattr("lwmfw_plugins.penalties.muc._side._RESIZED", 2)
    assert torch.equal(in_form(colours, 1, 9), whole)


def test_side_distillation_is_the_mean_over_side_classifiers_and_images():
    new, old = logits(5, 3, 4), logits(5, 3, 4, seed=1)
    total = sum(soft_cross_entropy(new[i, k], old[i, k], 2.0) for i in range(5) for k in range(3))
    assert_close(side_distillation(new, old, 2.0), total / 15)


def small(*, equal=False, **options):
    """The penalty in the second step with side classifiers of the first, and a pair whose new model learns a copy."""
    pair = outputs_pair(equal=equal)
    penalty = Muc(MucOptions(**options))
    penalty.heads = SideHeads.drawn(3, 2, 6, rng(5)).double().requires_grad_(False)
    learning = SideHeads.drawn(3, 2, 6, rng(6)).double()
    pair.model.extras["examined"] = copy.deepcopy(penalty.heads).requires_grad_() if equal else learning
    return penalty, pair


def test_the_term_is_t_times_the_distillation_of_classifier_and_side_classifiers():
    penalty, pair = small(weight=0.7, temperature=3.0)
    learning, known, expected = pair.model.extras["examined"], penalty.heads, 0.0
    for i in range(8):
        expected += soft_cross_entropy(pair.new.logits[i, :2], pair.old.logits[i, :2], 3.0) / 8
        for k in range(3):
            ours, theirs = learning(pair.new.features)[i, k], known(pair.old.features)[i, k]
            expected += soft_cross_entropy(ours, theirs, 3.0) / 24
    found = penalty_terms(penalty, pair)["muc"]
    assert_close(found, 0.7 * expected)
    fifth = copy.copy(pair.step)
    object.__setattr__(fifth, "index", 5)
    assert_close(penalty.compute_penalty(fifth, pair.new, pair.old, pair.model, "examined")["muc"], 4 * found)
    reached = torch.autograd.grad(found, [*pair.model.backbone.parameters(), *learning.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in reached)


def test_without_side_classifiers_the_classifier_alone_is_distilled():
    penalty, pair = small()
    penalty.heads, classes = None, slice(0, 2)
    alone = softmax_distillation(pair.new.logits[:, classes], pair.old.logits[:, classes], 2.0)
    assert_close(penalty_terms(penalty, pair)["muc"], alone)


def test_with_the_objective_it_has_the_minimum_of_the_papers_loss():
    penalty, pair = small()
    weights = list(pair.model.parameters())
    answers = torch.nn.functional.cross_entropy(pair.new.logits[:, 2:], pair.batch.labels % 2)
    distilled = penalty_terms(penalty, pair)["muc"]  # t = 1
    ours = torch.autograd.grad(answers + distilled, weights, retain_graph=True)
    papers = torch.autograd.grad(0.5 * answers + 0.5 * distilled, weights)
    assert all(torch.allclose(a, 2 * b) for a, b in zip(ours, papers, strict=True))


def test_equal_models_are_stationary():
    penalty, pair = small(equal=True)
    slopes = torch.autograd.grad(penalty_terms(penalty, pair)["muc"], list(pair.model.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-7


def test_side_classifiers_are_of_the_last_step_and_no_part_of_the_model_between_steps(tmp_path):
    (tmp_path / "plain").mkdir()
    run, plain = tiny_run(MUC, tmp_path), tiny_run(MUC | {"penalties": []}, tmp_path / "plain")
    kept = checkpoint.load(run.path / "checkpoints")
    assert kept.components["muc"]["weight"].shape == (3, 2, 16)
    assert not any(name.startswith("extras") for name in kept.model)
    assert model_bytes(run.run.model) == model_bytes(plain.run.model)
    assert [sorted(terms) for terms in run.terms.values()] == [["cross_entropy"], *2 * [["cross_entropy", "muc"]]]
    assert lwmfw.open_run(run.path).model.state_dict().keys() == run.run.model.state_dict().keys()


def watching(moments):
    """An observer that keeps what learns in step 2: as it begins and as it ends."""

    class Watching:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, step, model):
            if step.index == 2:
                moments["begun"] = copy.deepcopy(model.extras)

        @hookimpl
        def after_epoch(self, run, step):
            if step.index == 2:
                moments["learned"] = copy.deepcopy(run.model.extras)

    return Observer("watching", Watching)


def test_the_first_step_is_spared(tmp_path):
    (tmp_path / "plain").mkdir()
    runs = tiny_run(MUC, tmp_path), tiny_run(MUC | {"penalties": []}, tmp_path / "plain")
    ours, theirs = (checkpoint.load(run.path / "checkpoints", step=1).model for run in runs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_copy_of_them_learns_in_the_next_step_and_the_model_feels_it(tmp_path):
    (tmp_path / "without").mkdir()
    moments = {}
    recipe = MUC | {"penalties": [QUICK | {"as": "side.by.side"}], "observers": [{"use": "watching"}]}
    run = tiny_run(recipe, tmp_path, components=[watching(moments)])
    first = checkpoint.load(run.path / "checkpoints", step=1).components["side.by.side"]
    begun, learned = (moments[moment]["side_by_side"] for moment in ("begun", "learned"))
    assert torch.equal(begun.weight, first["weight"])
    assert 0 < (learned.weight - begun.weight).abs().max() < 0.5
    without = MUC | {"penalties": [{"use": "L_D", "form": "softmax"}]}
    alone = tiny_run(without, tmp_path / "without")
    assert alone.terms[2]["L_D"] < run.terms[2]["muc"]
    weights = [found.run.model.classifier.weight for found in (run, alone)]
    assert not torch.equal(*weights)


def test_side_classifiers_are_not_shown_exemplars(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("lwmfw_plugins.penalties.muc._side.fit", lambda heads, f, labels, *a, **k: shown.append(labels))
    memory = {"budget": "4 per class", "select": {"use": "random"}}
    tiny_run(MUC | {"memory": memory, "objective": {"use": "cross_entropy", "over": "seen"}}, tmp_path)
    assert [labels.bincount().tolist() for labels in shown] == 3 * [[16, 16]]


def test_bf16_trains(tmp_path):
    assert tiny_run(MUC | {"training": {"precision": "bf16"}}, tmp_path).results.complete


def test_other_images_can_be_photographs_of_another_size(tmp_path):
    (tmp_path / "photographs").mkdir()
    LAYOUTS["folder"](tmp_path / "photographs")
    other = {"use": "folder", "root": str(tmp_path / "photographs")}
    run = tiny_run(MUC | {"penalties": [QUICK | {"other": other, "other_images": 3}]}, tmp_path)
    assert run.run.assembly.components["muc"].instance.other.pixels.shape == (3, 3, 8, 8)


def test_missing_other_data_is_told_before_anything_is_learned(tmp_path):
    other = {"use": "cifar10", "root": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match="nowhere") as error:
        tiny_run(MUC | {"penalties": [QUICK | {"other": other}]}, tmp_path)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_other_data_is_a_table_that_is_checked_with_the_recipe(tmp_path):
    with pytest.raises(UserError, match=r"penalties\[0\]\.other\.classses"):
        tiny_run(MUC | {"penalties": [QUICK | {"other": {"use": "synthetic", "classses": 3}}]}, tmp_path)


@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path, after):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(MUC, tmp_path / "whole"), interrupted(tmp_path, MUC, after=after)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    sides = [run.run.assembly.components["muc"].instance.state()["weight"] for run in (whole, resumed)]
    assert torch.equal(*sides)
