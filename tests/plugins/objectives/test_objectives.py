"""nca and bce against slow loops: the margin that works, the one that does not, and images of none of the classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lwmfw import UserError
from lwmfw.assembly.assemble import assemble
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.classifiers._heads import CosineHead
from lwmfw_plugins.objectives.bce import binary_cross_entropy
from lwmfw_plugins.objectives.nca import NCA, NCAOptions, nca

LABELS = torch.tensor([0, 1, 3, 2, 2, 0])


def random_logits(seed=0, classes=4, scale=2.0):
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(len(LABELS), classes, generator=rng, dtype=torch.float64)).requires_grad_()


def paper_nca(logits, labels, margin, *, hinge):
    """The paper's formula, image by image."""
    total = 0.0
    for row, y in zip(logits, labels.tolist(), strict=True):
        others = sum(torch.exp(o) for i, o in enumerate(row) if i != y)
        loss = -torch.log(torch.exp(row[y] - margin) / others)
        total = total + (loss.clamp(min=0) if hinge else loss)
    return total / len(logits)


def published_nca(logits, labels, margin):
    """What the published code does, step by step."""
    total = 0.0
    for row, y in zip(logits, labels.tolist(), strict=True):
        lowered = [o - margin for o in row]
        largest = max(lowered)
        centred = [o - largest for o in lowered]
        denominator = sum(torch.exp(o if i != y else torch.zeros_like(o)) for i, o in enumerate(centred))
        total = total - (centred[y] - torch.log(denominator))
    return total / len(logits)


@pytest.mark.parametrize("hinge", [False, True])
def test_nca_is_the_papers_formula_in_value_and_gradient(hinge):
    logits = random_logits()
    loss, reference = nca(logits, LABELS, 0.6, hinge=hinge), paper_nca(logits, LABELS, 0.6, hinge=hinge)
    assert_close(loss, reference)
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(reference, logits))


@pytest.mark.parametrize("margin", [0.0, 0.6, 5.0])
def test_the_legacy_form_is_the_published_code_in_value_and_gradient(margin):
    logits = random_logits()
    loss, reference = nca(logits, LABELS, margin, legacy=True), published_nca(logits, LABELS, margin)
    assert_close(loss, reference)
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(reference, logits))


def test_the_legacy_form_is_a_cross_entropy_where_the_answer_is_right_and_more_where_it_is_wrong():
    logits = random_logits()
    right, wrong = logits.argmax(1), logits.argmin(1)
    assert_close(nca(logits, right, 0.6, legacy=True), cross_entropy(logits, right))
    assert nca(logits, wrong, 0.6, legacy=True) > cross_entropy(logits, wrong)


@pytest.mark.parametrize(("lead", "pulled"), [(0.59, True), (0.61, False)])
def test_the_pull_ends_where_the_margin_is_reached(lead, pulled):
    logits = torch.tensor([[lead, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(nca(logits, torch.tensor([0]), 0.6), logits)
    assert bool(gradient.abs().max() > 0) is pulled


def test_without_the_hinge_the_margin_pulls_nobody():
    logits = random_logits()
    gradients = [torch.autograd.grad(nca(logits, LABELS, m, hinge=False), logits)[0] for m in (0.0, 0.6)]
    assert_close(*gradients)


def test_the_margin_is_one_of_similarities():
    head = CosineHead(6, 3.0)
    head.grow(4)
    head.double()
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(len(LABELS), 6, generator=rng, dtype=torch.float64)
    objective = NCA(NCAOptions(margin=0.4))
    objective.before_step(SimpleNamespace(classifier=head))
    loss = objective.loss(head(features), LABELS)
    # eta (s_y - delta) in the numerator, eta s_i in the denominator
    similarities, eta = head.similarities(features), head.scale
    lowered = similarities.clone()
    for i, y in enumerate(LABELS.tolist()):
        lowered[i, y] -= 0.4
    reference = paper_nca(eta * lowered, LABELS, 0.0, hinge=True)
    assert_close(loss, reference)
    assert_close(torch.autograd.grad(loss, eta), torch.autograd.grad(reference, eta))


def test_a_classifier_without_a_scale_has_the_margin_as_it_is():
    objective = NCA(NCAOptions(margin=0.4))
    objective.before_step(SimpleNamespace(classifier=torch.nn.Linear(6, 4)))
    assert_close(objective.loss(random_logits(), LABELS), nca(random_logits(), LABELS, 0.4))


ONE_AT_A_TIME = [
    ({"first": 2, "increment": 1}, "new", 2),
    ({"first": 1, "increment": 1}, "new", 1),
    ({"first": 1, "increment": 3}, "seen", 1),
    ({"first": 2, "increment": [1, 1]}, "new", 2),
]


@pytest.mark.parametrize("objective", ["cross_entropy", "nca"])
@pytest.mark.parametrize(("scenario", "over", "step"), ONE_AT_A_TIME)
def test_a_softmax_over_one_class_is_refused_with_the_recipe(objective, scenario, over, step, tmp_path):
    recipe = {"scenario": scenario, "objective": {"use": objective, "over": over}}
    with pytest.raises(UserError) as refused:
        assemble(load_recipe(tiny_recipe(recipe, tmp_path)))
    assert f"objective: {objective} over the {over} classes says nothing in step {step}, which has 1 of" in (
        str(refused.value)
    )
    assert assemble(load_recipe(tiny_recipe(recipe | {"objective": {"use": "bce", "over": over}}, tmp_path)))
    untrained = {"training": {"epochs": 0}}
    assert assemble(load_recipe(tiny_recipe(recipe | untrained, tmp_path)))


@pytest.mark.parametrize("legacy", [False, True])
def test_nca_stays_finite_for_huge_logits(legacy):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    for labels in ([0, 1], [1, 0]):
        loss = nca(logits, torch.tensor(labels), 0.6, legacy=legacy)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_nca_is_over_the_seen_classes_by_default(tmp_path):
    assert NCAOptions().over == "seen"
    recipe = {"objective": {"use": "nca"}, "classifier": {"use": "cosine"}}
    assert math.isfinite(tiny_run(recipe, tmp_path).terms[2]["nca"])


def test_bce_takes_a_label_below_zero_as_none_of_the_classes():
    logits, labels = random_logits(), torch.tensor([0, -1, 3, -2, 2, -1])
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for c, logit in enumerate(row):
            total += math.log1p(math.exp(-logit if c == label else logit))
    assert_close(binary_cross_entropy(logits, labels), torch.tensor(total / 6, dtype=torch.float64))


def test_bce_over_the_new_classes_learns_that_exemplars_are_none_of_them(tmp_path):
    recipe = {
        "objective": {"use": "bce", "over": "new"},
        "memory": {"budget": "4 per class", "select": {"use": "random"}},
        "training": {"epochs": 2},
    }
    run = tiny_run(recipe, tmp_path)
    assert run.results.steps[1].exemplars == 16
    assert 0 < run.terms[2]["bce"] < 2


@pytest.mark.parametrize(
    "loss",
    [binary_cross_entropy, lambda o, y: nca(o, y, 0.6), lambda o, y: nca(o, y, 0.6, legacy=True)],
    ids=["bce", "nca", "legacy nca"],
)
def test_no_loss_waits_for_the_device(loss):
    # a tensor on "meta" has no values: whatever asks for one fails
    assert loss(random_logits().to("meta"), LABELS.to("meta")).shape == ()
