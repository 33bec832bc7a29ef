"""bic: which images are held out, the fit of the correction, its folding, and what a run makes of them."""

import math

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lwmfw import Observer, hookimpl
from lwmfw.errors import UserError
from lwmfw.testing import outputs_pair, penalty_terms, tiny_run
from lwmfw_plugins.classifiers._heads import LinearHead
from lwmfw_plugins.penalties.bic import (
    BiasCorrection,
    CorrectionOptions,
    correction_loss,
    fitted_correction,
    fold,
    held_out,
)
from lwmfw_plugins.penalties.wa import AlignmentOptions, WeightAlignment

BIC = THREE_STEPS | {
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "40 exemplars", "select": {"use": "herding"}},
    "penalties": [{"use": "bic", "held_out": 0.25}],
}


def drawn(seed):
    return torch.Generator().manual_seed(seed)


# what is held out


@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.floats(0.001, 0.5), st.integers(0, 1000))
def test_as_many_are_held_out_of_every_class_and_never_all(counts, share, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    out = held_out(labels, share, drawn(seed))
    found = torch.bincount(labels[out], minlength=len(counts)).tolist()
    assert found == [max(1, round(share * min(counts)))] * len(counts)
    assert all(held < count for held, count in zip(found, counts, strict=True))
    assert torch.equal(out, held_out(labels, share, drawn(seed)))


def test_which_ones_is_left_to_chance():
    labels, often = torch.arange(2).repeat_interleave(10), torch.zeros(20)
    for seed in range(200):
        often += held_out(labels, 0.3, drawn(seed))
    assert often.min() > 30
    assert often.max() < 90


# the fit


def planted(alpha, beta, count):
    """Logits and labels for which alpha o + beta is right: labels are drawn from the softmax of the corrected ones."""
    rng = drawn(0)
    logits = 2 * torch.randn(count, 7, dtype=torch.float64, generator=rng)
    right = logits.clone()
    right[:, 4:] = alpha * right[:, 4:] + beta
    return logits, right.softmax(1).multinomial(1, generator=rng).flatten()


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, -2.0), (1.0, 0.0), (1.6, 0.7)])
def test_a_planted_correction_is_found(alpha, beta):
    found = fitted_correction(*planted(alpha, beta, count=40_000), 4)
    assert found == pytest.approx((alpha, beta), abs=0.05)


def test_the_loss_is_its_formula():
    logits, labels = planted(0.5, -1.0, count=9)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scores = row[:4] + [0.7 * score - 0.3 for score in row[4:]]
        total += math.log(sum(map(math.exp, scores))) - scores[label]
    expected = (total + 0.5 * (0.3**2 + 0.3**2)) / 9
    assert float(correction_loss(torch.tensor([0.7, -0.3]).double(), logits, labels, 4)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [12, 4000])
def test_the_loss_is_stationary_at_what_was_found_and_larger_elsewhere(count):
    logits, labels = planted(0.5, -2.0, count)
    found = torch.tensor(fitted_correction(logits.float(), labels, 4), dtype=torch.float64, requires_grad=True)
    least = correction_loss(found, logits.float().double(), labels, 4)
    (gradient,) = torch.autograd.grad(least, found)
    assert gradient.abs().max() < 1e-8
    for direction in torch.randn(8, 2, dtype=torch.float64, generator=drawn(1)):
        assert correction_loss(found.detach() + 0.01 * direction, logits.float().double(), labels, 4) > least


def test_images_without_a_fault_have_a_finite_correction():
    labels = torch.arange(4).repeat(3)
    logits = 5.0 * torch.eye(4)[labels]
    alpha, beta = fitted_correction(logits, labels, 2)
    assert 0.5 < alpha < 3
    assert abs(beta) < 1


@given(st.floats(-2, 2), st.floats(-5, 5), st.integers(0, 1000))
def test_folded_rows_score_what_corrected_logits_are(alpha, beta, seed):
    head, rng = LinearHead(6).double(), drawn(seed)
    head.grow(5)
    head.requires_grad_(False)
    for parameter in head.parameters():
        parameter.normal_(generator=rng)
    features = torch.randn(8, 6, dtype=torch.float64, generator=rng)
    logits = head(features)
    fold(head.weight, head.bias, 3, alpha, beta)
    assert torch.equal(head(features)[:, :3], logits[:, :3])
    assert_close(head(features)[:, 3:], alpha * logits[:, 3:] + beta, rtol=1e-12, atol=1e-12)


# runs


def test_the_distillation_is_that_of_wa():
    pair = outputs_pair()
    ours = penalty_terms(BiasCorrection(CorrectionOptions(temperature=3.0)), pair)["bic"]
    assert torch.equal(ours, penalty_terms(WeightAlignment(AlignmentOptions(temperature=3.0)), pair)["wa"])


class Watch:
    """Keeps what a step was trained on, the classifier after every update, and what the memory holds after it."""

    def __init__(self, options):
        self.shown, self.kept, self.trained, self.ended, self.extra = {}, {}, {}, {}, {}

    @hookimpl
    def before_step(self, step, data):
        self.shown[step.index] = data

    @hookimpl
    def after_update(self, step, model):
        self.trained[step.index] = {name: value.clone() for name, value in model.classifier.state_dict().items()}

    @hookimpl
    def after_step(self, run, step, model, result):
        self.kept[step.index] = run.memory.images()
        self.ended[step.index] = {name: value.clone() for name, value in model.classifier.state_dict().items()}
        self.extra[step.index] = result.extra


def watched(folder, recipe=BIC):
    run = tiny_run(recipe | {"observers": [{"use": "watch"}]}, folder, components=[Observer("watch", Watch)])
    return run, run.run.assembly.components["watch"].instance


def contents(images):
    return [image.numpy().tobytes() for image in images.pixels]


def test_held_out_images_are_not_trained_on_and_exemplars_among_them_stay_in_the_memory(tmp_path):
    run, watch = watched(tmp_path)
    counts = {index: torch.bincount(data.labels).tolist() for index, data in watch.shown.items()}
    # 20 exemplars a class, of which there are 16; then 10: a quarter is 4 and 2
    assert counts == {1: [16, 16], 2: [12] * 4, 3: [8] * 4 + [14] * 2}
    shown, exemplars = set(contents(watch.shown[3])), contents(watch.kept[2])
    held = [image for image in exemplars if image not in shown]
    assert len(exemplars) == 40
    assert len(held) == 8
    new = run.run.data.train.of_classes(range(4, 6))
    left = set(contents(new)) - shown
    assert len(left) == 4
    assert not left & set(contents(watch.kept[3])), "new images that are held out are no candidates"


def test_exemplars_that_were_held_out_can_be_kept_again(tmp_path):
    roomy = BIC | {"memory": {"budget": "all", "select": {"use": "herding"}}}
    _, watch = watched(tmp_path, roomy)
    held = set(contents(watch.kept[1])) - set(contents(watch.shown[2]))
    assert len(held) == 8
    assert held <= set(contents(watch.kept[3]))


def test_the_correction_is_folded_into_the_new_rows_and_noted(tmp_path):
    run, watch = watched(tmp_path)
    assert [sorted(terms) for terms in run.terms.values()] == [["cross_entropy"], *[["bic", "cross_entropy"]] * 2]
    assert "bic" not in watch.extra[1]
    for index in (1, 2, 3):
        trained, ended, known = watch.trained[index], watch.ended[index], 2 * index - 2
        alpha, beta = watch.extra[index]["bic"].values() if index > 1 else (1.0, 0.0)
        assert (index == 1) == ((alpha, beta) == (1.0, 0.0))
        assert_close(ended["weight"][known:], alpha * trained["weight"][known:])
        assert_close(ended["bias"][known:], alpha * trained["bias"][known:] + beta)
        assert all(torch.equal(ended[name][:known], trained[name][:known]) for name in trained)


def test_the_correction_is_fitted_on_what_was_held_out(tmp_path):
    run, watch = watched(tmp_path)
    images, shown = run.run.data.train, set(contents(watch.shown[3]))
    exemplars = set(contents(watch.kept[2])) | set(contents(images.of_classes(range(4, 6))))
    held = [i for i, image in enumerate(contents(images)) if image in exemplars - shown]
    features = run.run.features(images.select(torch.tensor(held)))
    trained = watch.trained[3]
    logits = features @ trained["weight"].T + trained["bias"]
    found = watch.extra[3]["bic"]
    assert list(found.values()) == pytest.approx(fitted_correction(logits, images.labels[held], 4), abs=1e-4)


def test_a_class_with_one_image_is_refused_in_words(tmp_path):
    with pytest.raises(UserError) as refused:
        tiny_run(BIC | {"memory": BIC["memory"] | {"budget": "1 per class"}}, tmp_path)
    assert str(refused.value).partition(": ")[2] == (
        "bic: class 'pattern 1' has 1 of the images of step 2, and one to learn from and one to hold out are needed; "
        "keep more exemplars, or leave the component out"
    )


def test_two_images_of_a_class_are_enough(tmp_path):
    _, watch = watched(tmp_path, BIC | {"memory": BIC["memory"] | {"budget": "2 per class"}})
    assert torch.bincount(watch.shown[3].labels).tolist() == [1, 1, 1, 1, 15, 15]


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"memory": None}, "bic needs exemplars, but the recipe keeps none; add [memory]"),
        ({"classifier": {"use": "proxies"}}, "bic needs 'rows', but the classifier proxies offers"),
    ],
)
def test_what_it_needs_is_told(tmp_path, lacking, message):
    recipe = {key: value for key, value in (BIC | lacking).items() if value is not None}
    with pytest.raises(UserError) as refused:
        tiny_run(recipe, tmp_path)
    assert message in str(refused.value)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(BIC, tmp_path / "whole"), interrupted(tmp_path, BIC, after=2)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert [step.extra for step in whole.results.steps] == [step.extra for step in resumed.results.steps]
