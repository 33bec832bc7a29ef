"""efc: the feature matrix and the distance against slow loops in float64, and what a run makes of them."""

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch.testing import assert_close

from lwmfw.testing import outputs_pair, penalty_terms, tiny_run
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead, ProxyHead
from lwmfw_plugins.penalties import efc
from lwmfw_plugins.penalties.efc import Efc, EfcOptions, elastic_distance, feature_matrix

HEADS = {
    "linear": lambda: LinearHead(6),
    "cosine": lambda: CosineHead(6, 3.0),
    "proxies": lambda: ProxyHead(6, 3.0, proxies=3, scaling=1.0, gamma=1.0, learned_scale=True),
}
EFC = THREE_STEPS | {"penalties": [{"use": "efc"}]}


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def grown(name):
    """A head that has seen two steps, float64."""
    head = HEADS[name]()
    head.grow(3)
    head.grow(2)
    return head.double()


def image_by_image(head, features):
    """The mean of J^T (diag p - p p^T) J, a backward pass for each logit of each image."""
    total = torch.zeros(features.shape[1], features.shape[1], dtype=features.dtype)
    for image in features:
        image = image.clone().requires_grad_()
        logits = head(image[None])[0]
        slopes = torch.stack([torch.autograd.grad(logit, image, retain_graph=True)[0] for logit in logits])
        p = logits.detach().softmax(0)
        total += slopes.T @ (p.diag() - p.outer(p)) @ slopes
    return total / len(features)


@pytest.mark.parametrize("name", HEADS)
def test_the_feature_matrix_is_its_formula_for_any_head(name):
    head, features = grown(name), 2 * torch.randn(7, 6, dtype=torch.float64)
    found = feature_matrix(head, features)
    assert_close(found, image_by_image(head, features), rtol=1e-9, atol=1e-12)
    assert not found.requires_grad
    assert all(p.grad is None for p in head.parameters())


def test_for_a_linear_head_it_is_made_of_the_weights():
    head, features = grown("linear"), torch.randn(5, 6, dtype=torch.float64)
    p = head(features).softmax(1)
    middle = (p.diag_embed() - p[:, :, None] * p[:, None]).mean(0)
    assert_close(feature_matrix(head, features), (head.weight.T @ middle @ head.weight).detach())


def test_how_many_images_are_taken_at_a_time_does_not_matter(monkeypatch):
    head, features = grown("cosine"), torch.randn(7, 6, dtype=torch.float64)
    whole = feature_matrix(head, features)
    for values in (3 * 5 * 6, 1):
        monkeypatch.setattr(efc, "_VALUES", values)
        assert_close(feature_matrix(head, features), whole)


def test_what_moves_all_logits_alike_is_free():
    head = grown("linear")
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, 6, dtype=torch.float64))
        head.weight[:, 2] = 1.0
    matrix = feature_matrix(head, torch.randn(5, 6, dtype=torch.float64))
    assert matrix[2].abs().max() < 1e-12
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12
    assert matrix.diagonal()[[0, 1, 3, 4, 5]].min() > 0.01


def test_the_distance_is_the_quadratic_form_averaged_over_the_batch():
    new, old = torch.randn(2, 4, 6, dtype=torch.float64)
    root = torch.randn(6, 6, dtype=torch.float64)
    matrix = root @ root.T
    stiff = 3.0 * matrix + 0.5 * torch.eye(6, dtype=torch.float64)
    expected = sum((a - b) @ stiff @ (a - b) for a, b in zip(new, old, strict=True)) / 4
    assert_close(elastic_distance(new, old, matrix, 3.0, 0.5), expected)
    assert elastic_distance(new, new, matrix, 3.0, 0.5) == 0


def test_the_term_holds_features_and_is_zero_where_they_are_equal():
    penalty = Efc(EfcOptions())
    assert not penalty_terms(penalty, outputs_pair())
    pair = outputs_pair()
    penalty.matrix = feature_matrix(pair.old_model.classifier, pair.old.features)
    term = penalty_terms(penalty, pair)["efc"]
    assert_close(term, elastic_distance(pair.new.features, pair.old.features, penalty.matrix, 10.0, 0.1))
    gradients = torch.autograd.grad(term, list(pair.model.backbone.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert penalty_terms(penalty, outputs_pair(equal=True))["efc"] == 0


def test_the_matrix_is_that_of_the_newest_step_and_of_all_its_images(tmp_path):
    run = tiny_run(EFC, tmp_path).run
    penalty, images = run.assembly.components["efc"].instance, run.data.train.of_classes(run.steps[-1].new_classes)
    features = run.features(images).double()
    expected = image_by_image(run.model.classifier.double(), features)
    assert_close(penalty.matrix.double(), expected, rtol=1e-4, atol=1e-6)


def test_the_term_is_there_from_the_second_step_on_and_keeps_features_near(tmp_path):
    distances, gently = [], {"epochs": 3, "lr": 0.03, "batchnorm": "eval", "first": {"batchnorm": "train"}}
    for weight, plain in ((0.0, 0.0), (3.0, 0.1)):
        (tmp_path / str(weight)).mkdir()
        meter = {"use": "efc", "as": "meter", "weight": 0.0, "plain": 1e-6}
        penalties = [{"use": "efc", "weight": weight, "plain": plain}, meter]
        run = tiny_run(EFC | {"penalties": penalties, "training": gently}, tmp_path / str(weight))
        assert [sorted(terms) for terms in run.terms.values()] == [["bce"], *[["bce", "efc.efc", "meter.efc"]] * 2]
        distances.append(run.terms[2]["meter.efc"])
    assert distances[1] < 0.5 * distances[0]


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(EFC, tmp_path / "whole"), interrupted(tmp_path, EFC, after=2)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    matrices = [run.run.assembly.components["efc"].instance.matrix for run in (whole, resumed)]
    assert torch.equal(*matrices)
