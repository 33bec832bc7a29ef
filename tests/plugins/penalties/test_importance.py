"""ewc, si and mas: importance against slow loops in float64, what measuring leaves alone, and what holds."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lwmfw import Images
from lwmfw.model.growing import Model, build_model
from lwmfw_plugins.backbones._resnet import ResNet
from lwmfw_plugins.backbones.torchvision import Torchvision, TorchvisionOptions
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead
from lwmfw_plugins.penalties import _importance
from lwmfw_plugins.penalties._importance import flat, placed, some_of, spring_energy
from lwmfw_plugins.penalties.ewc import drawn_class, fisher_diagonal, joined
from lwmfw_plugins.penalties.mas import sensitivity
from lwmfw_plugins.penalties.si import Si, SiOptions, path_importance


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def small_model(classes=3):
    """A residual network in training mode whose BatchNorm has been in use, float64."""
    model = build_model(ResNet(3, 1, width=4), LinearHead(16), torch.device("cpu"), bf16=False)
    model.grow(classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model.double().train()


def batches_of(known, size=3):
    images = torch.randn(len(known), 3, 8, 8, dtype=torch.float64)
    return list(zip(images.split(size), known.split(size), strict=True))


def one_by_one(model, batches, score, measure):
    """The mean over images of a measure of their gradients: one backward pass each."""
    model = copy.deepcopy(model).eval()
    gradients = []
    for images, known in batches:
        for image, what in zip(images, known, strict=True):
            model.zero_grad()
            score(model(image[None]).logits[0], what).backward()
            gradients.append(measure(flat(p.grad for p in model.parameters())))
    return sum(gradients) / len(gradients)


# importance


def test_the_empirical_fisher_is_the_mean_squared_gradient_of_the_labels_log_probability():
    model, batches = small_model(), batches_of(torch.tensor([0, 2, 1, 1, 0, 2, 2]))
    expected = one_by_one(model, batches, lambda logits, y: -logits.log_softmax(0)[y], torch.square)
    found = fisher_diagonal(model, dict(model.named_parameters()), batches, "empirical")
    assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not found.requires_grad


def test_the_true_fisher_is_that_of_labels_drawn_from_the_model():
    def drawn(logits, u):
        p, end = logits.detach().softmax(0).tolist(), 0.0
        for y, part in enumerate(p):
            end += part
            if u < end:
                return -logits.log_softmax(0)[y]
        raise AssertionError("the parts make up 1")

    model, batches = small_model(), batches_of(torch.rand(7, dtype=torch.float64))
    expected = one_by_one(model, batches, drawn, torch.square)
    found = fisher_diagonal(model, dict(model.named_parameters()), batches, "true")
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_drawing_labels_gives_the_expectation_over_the_models_own_prediction():
    # numbers at even distances draw every class as often as its probability says, to 1 in 400
    model, image = small_model(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    parameters = dict(model.classifier.named_parameters(prefix="classifier"))
    numbers = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    found = fisher_diagonal(model, parameters, [(image.expand(400, -1, -1, -1), numbers)], "true")
    p = copy.deepcopy(model).eval()(image).logits[0].softmax(0)
    each = [fisher_diagonal(model, parameters, [(image, torch.tensor([y]))], "empirical") for y in range(3)]
    expected = sum(p[y].detach() * fisher for y, fisher in enumerate(each))
    assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.max()))


@given(seed=st.integers(0, 2**31), classes=st.integers(1, 9), number=st.floats(0, 1))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_a_number_draws_a_class_that_there_is(seed, classes, number):
    logits = 5 * torch.randn(classes, generator=torch.Generator().manual_seed(seed))
    drawn = drawn_class(logits, torch.tensor(number))
    assert 0 <= int(drawn) < classes
    assert logits.softmax(0)[:drawn].sum() <= number + 1e-6


def test_the_sensitivity_is_the_mean_absolute_gradient_of_the_squared_norm_of_the_logits():
    model, batches = small_model(), batches_of(torch.zeros(7))
    expected = one_by_one(model, batches, lambda logits, _: (logits**2).sum(), torch.abs)
    found = sensitivity(model, dict(model.named_parameters()), batches)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_how_many_images_are_taken_at_a_time_does_not_matter(monkeypatch):
    model, batches = small_model(), batches_of(torch.zeros(7))
    parameters = dict(model.named_parameters())
    whole = sensitivity(model, parameters, batches)
    monkeypatch.setattr(_importance, "_VALUES", 2 * len(whole))
    assert_close(sensitivity(model, parameters, batches), whole)
    monkeypatch.setattr(_importance, "_VALUES", 1)
    assert_close(sensitivity(model, parameters, batches), whole)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_measuring_leaves_the_model_as_it_was(training):
    model = small_model().train(training)
    model.bf16 = True
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    sensitivity(model, dict(model.named_parameters()), [(torch.ones(4, 3, 8, 8).double(), torch.zeros(4))])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.training, model.bf16) == (training, True)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_model_that_computes_in_bf16_is_measured_in_float32():
    model, images = small_model().float(), torch.randn(3, 3, 8, 8)
    parameters, batches = dict(model.named_parameters()), [(images, torch.tensor([0, 1, 2]))]
    expected = fisher_diagonal(model, parameters, batches, "empirical")
    model.bf16 = True
    assert torch.equal(fisher_diagonal(model, parameters, batches, "empirical"), expected)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_torchvisions_networks_are_measured_too(name):
    body = Torchvision(TorchvisionOptions(model=name)).build(3).eval()
    width = body(torch.zeros(1, 3, 32, 32)).features.shape[1]
    model = Model(body, LinearHead(width))
    model.grow(2)
    parameters = dict(model.classifier.named_parameters(prefix="classifier"))
    last = dict(list(body.named_parameters(prefix="backbone"))[-3:])
    found = sensitivity(model, parameters | last, [(torch.randn(2, 3, 32, 32), torch.zeros(2))])
    assert found.isfinite().all()
    assert found.max() > 0


def test_some_images_are_drawn_at_random_and_all_of_them_where_there_are_fewer():
    images = Images(torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1), torch.arange(9) // 3)
    draws = [some_of(images, 4, torch.Generator().manual_seed(seed)).pixels.flatten().tolist() for seed in (0, 0, 1)]
    assert all(len(set(drawn)) == 4 for drawn in draws)
    assert draws[0] == draws[1] != draws[2]
    for most in (0, 9, 10):
        assert some_of(images, most, torch.Generator()) is images


# what holds the parameters


def test_the_penalty_is_half_the_sum_of_squared_distances_by_stiffness():
    values, anchors, weights = torch.randn(3, 5, dtype=torch.float64).unbind()
    values.requires_grad_()
    loss = spring_energy(values, anchors, weights)
    pairs = zip(values.tolist(), anchors.tolist(), weights.tolist(), strict=True)
    assert loss.item() == pytest.approx(sum(w / 2 * (x - a) ** 2 for x, a, w in pairs))
    loss.backward()
    assert_close(values.grad, weights * (values.detach() - anchors))


def test_penalties_of_several_steps_are_one_up_to_a_constant():
    anchors = torch.randn(4, 6, dtype=torch.float64)
    weights = torch.rand(4, 6, dtype=torch.float64)
    weights[:, 0] = 0
    weights[1:, 1] = 0
    held = anchors[0], weights[0]
    for more in zip(anchors[1:], weights[1:], strict=True):
        held = joined(*held, *more)

    def difference(values):
        apart = sum(spring_energy(values, a, w) for a, w in zip(anchors, weights, strict=True))
        return apart - spring_energy(values, *held)

    places = 3 * torch.randn(5, 6, dtype=torch.float64)
    assert_close(torch.stack([difference(x) for x in places]), difference(places[0]).expand(5))
    assert held[0].isfinite().all()


def test_what_is_held_keeps_its_place_when_parameters_grow_come_and_go():
    before = {"scale": torch.tensor(7.0), "gone": torch.ones(2), "rows": torch.arange(4.0).view(2, 2)}
    shapes = {name: list(p.shape) for name, p in before.items()}
    now = {"new": torch.ones(1), "rows": torch.ones(3, 2), "scale": torch.tensor(1.0)}
    assert placed(flat(before.values()), shapes, now).tolist() == [0, 0, 1, 2, 3, 0, 0, 7]


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("head", [LinearHead, lambda width: CosineHead(width, 2.0)], ids=["linear", "cosine"])
def test_rows_of_new_classes_are_free(head, heads):
    model = Model(ResNet(3, 1, width=4), head(16))
    model.grow(2)
    penalty = Si(SiOptions(heads=heads))
    values = flat(penalty.parameters(model).values()).detach()
    penalty.hold(model, values + 1, torch.ones_like(values))
    model.grow(3)
    penalty.before_step(model)
    penalty.compute_penalty(model)["si"].backward()
    assert all(p.grad.abs().min() > 0 for p in model.backbone.parameters())
    rows = [p.grad for name, p in model.classifier.named_parameters() if "weight" in name]
    if not heads:
        assert rows == [None] * len(rows)
        return
    gradient = torch.cat(rows)
    assert gradient[:2].abs().min() > 0
    assert gradient[2:].abs().max() == 0


@pytest.mark.parametrize(("limit", "expected"), [(10.0, [4.0, 2.0, 10.0]), (0.0, [4.0, 2.0, 60.0])])
def test_no_spring_is_stiffer_than_the_limit(limit, expected):
    model = Model(nn.Linear(3, 1, bias=False), LinearHead(1))
    penalty = Si(SiOptions(weight=1.0, limit=limit))
    penalty.hold(model, torch.zeros(3), torch.tensor([2.0, 1.0, 30.0]))
    penalty.before_step(model)
    assert penalty.stiffness.tolist() == expected


# si's way


def test_si_gathers_what_every_update_gained_for_the_loss_without_the_penalty():
    model, options = small_model().eval(), SiOptions(weight=0.7, damping=0.2)
    penalty, images, labels = Si(options), torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    omega, anchors = None, None

    def task_loss():
        return nn.functional.cross_entropy(model(images).logits, labels)

    for step in (1, 2, 3):
        penalty.before_step(model)
        # the recipe's optimiser, whatever it adds to the gradient
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        start = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
        way = {name: torch.zeros_like(p) for name, p in start.items()}
        for _ in range(3):
            before = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
            named = dict(model.backbone.named_parameters())
            slopes = dict(zip(named, torch.autograd.grad(task_loss(), list(named.values())), strict=True))
            optimizer.zero_grad()
            terms = penalty.compute_penalty(model) if step > 1 else {}
            (task_loss() + sum(terms.values())).backward()
            optimizer.step()
            penalty.after_update(model)
            for name, p in named.items():
                way[name] -= slopes[name] * (p.detach() - before[name])
        penalty.after_step(model)
        named = dict(model.backbone.named_parameters())
        gained = {name: way[name] / ((p.detach() - start[name]) ** 2 + 0.2) for name, p in named.items()}
        total = gained if omega is None else {name: omega[name] + more for name, more in gained.items()}
        omega = {name: torch.relu(value) for name, value in total.items()}
        anchors = {name: p.detach().clone() for name, p in named.items()}
        assert_close(penalty.held.importance, flat(omega.values()), rtol=1e-8, atol=1e-12)
        assert_close(penalty.held.anchors, flat(anchors.values()))


def test_si_takes_its_own_pull_out_of_the_gradient_of_those_batches_only_that_have_the_term():
    model, penalty = small_model(), Si(SiOptions(weight=5.0))
    values = flat(penalty.parameters(model).values()).detach()
    penalty.hold(model, values - 0.3, torch.ones_like(values))
    penalty.before_step(model)
    for with_term in (True, False):
        if with_term:
            penalty.compute_penalty(model)
        for p in model.parameters():
            p.grad = torch.full_like(p, 4.0)
            p.data.sub_(0.1)
        penalty.after_update(model)
    # the springs of stiffness 2 * 5 pulled with 3 of the 4 at first; a phase without penalties has no springs
    assert_close(penalty._gained, torch.full_like(values, 0.1 * (4 - 3) + 0.1 * 4))


def test_what_is_frozen_gains_nothing():
    model, penalty = small_model(), Si(SiOptions())
    frozen, *free = model.backbone.parameters()
    penalty.before_step(model)
    for p in free:
        p.grad = torch.ones_like(p)
        p.data.sub_(0.1)
    frozen.data.sub_(0.1)  # whatever moved it, no gradient asked for it
    penalty.after_update(model)
    penalty.after_step(model)
    first, *others = penalty.held.importance.split([p.numel() for p in (frozen, *free)])
    assert first.abs().max() == 0
    assert all(part.min() > 0 for part in others)


def test_what_a_later_step_made_worse_lowers_the_importance_but_never_below_nothing():
    model, penalty = small_model(), Si(SiOptions(damping=1.0))
    found = []
    for slope in (3.0, -2.0, -5.0):
        penalty.before_step(model)
        for p in model.parameters():
            p.grad = torch.full_like(p, slope)
            p.data.sub_(1.0)
        penalty.after_update(model)
        penalty.after_step(model)
        found.append(float(penalty.held.importance.unique()))
    assert found == pytest.approx([1.5, 0.5, 0.0])


def test_the_importance_of_a_way():
    importance = path_importance(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 3.0]), 1.0)
    assert importance.tolist() == pytest.approx([1.0, -0.2])
