"""der: a branch for every step, old ones as they were, and an auxiliary classifier while the new one learns."""

import json

import pytest
import torch
from helpers.months import CLASSES, extend, pictures
from helpers.networks import unsettle
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import lwmfw
from lwmfw import Backbone, Batch, Model, Observer, Step, UserError, hookimpl
from lwmfw.model.growing import frozen_copy, parameter_count
from lwmfw.record import checkpoint
from lwmfw.testing import check, tiny_run
from lwmfw_plugins._extras import linear_head
from lwmfw_plugins.backbones._resnet import ResNet
from lwmfw_plugins.backbones.der import Der, DerOptions, auxiliary_labels
from lwmfw_plugins.classifiers._heads import LinearHead

SMALL = {"use": "der", "width": 4, "blocks": 1}
MORE = (("previous", 2), ("fresh", 1), ("fresh", 2))
CLASSIFIER = {"use": "balanced", "epochs": 1, "penalties": False, "fresh": True, "temperature": 2.0}
DER = THREE_STEPS | {
    "backbone": SMALL,
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "12 exemplars", "select": {"use": "herding"}},
    "phases": [CLASSIFIER],
}


def network(branches=3, **options):
    """A network with so many branches, each as if it had learned something else."""
    options = {"width": 4, "blocks": 1} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Der(DerOptions(**options)).build(3)
        for _ in range(branches - 1):
            net.grow(fresh=True)
        return unsettle(net)


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """A run, and the state of its network after each step."""
    states = []

    class Watching:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, model):
            states.append({name: value.clone() for name, value in model.state_dict().items()})
            assert not model.extras

    recipe = DER | {"phases": [CLASSIFIER | {"trains": "all"}], "observers": [{"use": "watching"}]}
    run = tiny_run(recipe, tmp_path_factory.mktemp("der"), components=[Observer("watching", Watching)])
    return run, states


# the network


def test_features_are_those_of_all_branches_oldest_first():
    net, images = network().eval(), torch.randn(2, 3, 8, 8)
    out = net(images)
    assert_close(out.features, torch.cat([branch(images).features for branch in net.branches], 1))
    assert out.features.shape == (2, 3 * 16)
    assert_close(out.pooled.mean((2, 3)), out.features)


def test_a_new_branch_begins_as_the_previous_one_or_drawn():
    net = network(1)
    net.grow(fresh=False)
    first, second = net.branches
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}
    net.grow(fresh=True)
    third = net.newest
    assert not torch.equal(third.stem[0].weight, second.stem[0].weight)
    drawn = ResNet(3, 1, 4)
    assert [p.shape for p in third.parameters()] == [p.shape for p in drawn.parameters()]


def test_only_the_newest_branch_learns_and_looks_at_statistics_of_a_batch():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.randn(4, 3, 8, 8)).features.square().sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {
        name for name, _ in net.named_parameters() if name.startswith("branches.2.")
    }
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("branches.2.") for name in moved)
    net.eval()
    assert not any(module.training for module in net.modules())


def test_an_image_has_gradients_through_old_branches_too():
    net, images = network().eval(), torch.randn(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(images).features[:, :16].sum(), images)
    assert gradient.abs().max() > 0


def test_a_frozen_copy_has_no_normalisation_left_and_computes_the_same():
    model = Model(network(), LinearHead(48))
    model.grow(2)
    model.double().eval()
    old, images = frozen_copy(model), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    assert_close(old(images).logits, model(images).logits, rtol=1e-10, atol=1e-12)


def test_it_keeps_the_contract_of_backbones():
    check(Backbone("der", Der, DerOptions), {"channels": 1, "size": 28}, width=4)


# the auxiliary loss


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 9))
def test_old_classes_are_one_class_and_new_ones_keep_apart(labels, first):
    found = auxiliary_labels(torch.tensor(labels), first).tolist()
    assert found == [0 if label < first else 1 + label - first for label in labels]


def test_the_term_is_the_cross_entropy_of_the_new_features_over_old_and_each_new_class():
    component, net = Der(DerOptions(width=4, blocks=1, auxiliary=0.7)), network(2).double()
    model, step = Model(net, LinearHead(32).double()), Step(2, range(3, 5), range(5), 2)
    model.grow(5)
    model.extras["der"] = linear_head(16, 3, torch.Generator().manual_seed(0)).double()
    images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 4, 2, 4, 1])
    new, batch = model(images), Batch(images, labels, labels < 3)
    total, head = 0.0, model.extras["der"]
    for features, label in zip(new.features.detach(), labels.tolist(), strict=True):
        scores = [
            float(row @ features[16:] + bias) for row, bias in zip(*map(torch.detach, head.parameters()), strict=True)
        ]
        target = {3: 1, 4: 2}.get(label, 0)
        total -= torch.tensor(scores, dtype=torch.float64).log_softmax(0)[target]
    terms = component.compute_penalty(step, batch, new, model, "der")
    assert list(terms) == ["auxiliary"]
    assert_close(terms["auxiliary"], 0.7 * total / 6)
    reached = torch.autograd.grad(terms["auxiliary"], list(net.newest.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in reached)


def test_the_head_is_a_function_of_its_generator_alone():
    state = torch.random.get_rng_state()
    one, same, other = (linear_head(6, 4, torch.Generator().manual_seed(seed)).weight for seed in (1, 1, 2))
    assert one.shape == (4, 6)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


# runs


def test_every_step_adds_a_branch_and_its_features(three_steps):
    run, states = three_steps
    branch = parameter_count(ResNet(3, 1, 4))
    assert [step.parameters for step in run.results.steps] == [
        k * branch + 2 * k * (k * 16 + 1) for k in (1, 2, 3)
    ]  # of the classifier a weight for each of 2 k classes and 16 k features, and a bias
    assert [state["classifier.weight"].shape for state in states] == [(2, 16), (4, 32), (6, 48)]


def test_old_branches_do_not_change_by_a_bit(three_steps):
    _, states = three_steps
    for branch in (0, 1):
        then, later = states[branch], states[branch + 1 :]
        own = [name for name in then if name.startswith(f"backbone.branches.{branch}.")]
        assert any("running_mean" in name for name in own)
        assert all(torch.equal(then[name], state[name]) for state in later for name in own)
    newest = "backbone.branches.1.stem.0.weight"
    assert not torch.equal(states[1][newest], states[0]["backbone.branches.0.stem.0.weight"])


def test_the_auxiliary_classifier_is_there_in_the_main_phase_from_the_second_step_on(three_steps):
    run, _ = three_steps
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["phase"], sorted(row["terms"])) for row in rows] == [
        (1, "main", ["cross_entropy"]),
        (2, "main", ["auxiliary", "cross_entropy"]),
        (2, "balanced", ["cross_entropy"]),
        (3, "main", ["auxiliary", "cross_entropy"]),
        (3, "balanced", ["cross_entropy"]),
    ]
    assert not [name for name in checkpoint.load(run.path / "checkpoints").model if name.startswith("extras")]


def test_a_phase_with_penalties_has_no_auxiliary_term_either(tmp_path):
    run = tiny_run(DER | {"phases": [CLASSIFIER | {"penalties": True}]}, tmp_path)
    assert run.terms[3].keys() == {"cross_entropy"}


def test_an_opened_run_gives_the_same_logits(tmp_path):
    run, images = tiny_run(DER, tmp_path), torch.randn(4, 3, 8, 8)
    assert torch.equal(lwmfw.open_run(run.path).model(images).logits, run.run.model.eval()(images).logits)


@pytest.mark.parametrize(
    ("begin", "after"), [("previous", 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(begin, after, tmp_path):
    recipe = DER | {"backbone": SMALL | {"begin": begin}}
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(recipe, tmp_path / "whole"), interrupted(tmp_path, recipe, after=after)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert [s.confusion for s in whole.results.steps] == [s.confusion for s in resumed.results.steps]


@pytest.mark.parametrize("prune", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_run_is_extended_by_training(prune, tmp_path):
    pictures(tmp_path / "months", CLASSES["months"])
    pictures(tmp_path / "may", CLASSES["may"])
    data = {"use": "folder", "root": str(tmp_path / "months"), "size": 8, "decode": "once"}
    recipe = DER | {
        "data": data,
        "scenario": {"first": 0, "increment": 0, "order": "given"},
        "backbone": SMALL | ({"prune": True, "sparsity": 400.0} if prune else {}),
    }
    run = tiny_run(recipe, tmp_path)
    extend(run.path, tmp_path / "may", tmp_path / "more", "--train")
    model, first = lwmfw.open_run(tmp_path / "more").model, lwmfw.open_run(run.path).model
    kept = model.backbone.branches[0].state_dict()
    assert len(model.backbone.branches) == 2
    assert all(torch.equal(value, kept[name]) for name, value in first.backbone.branches[0].state_dict().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"memory": None, "phases": []}, r"der needs exemplars, but the recipe keeps none; add \[memory\]"),
        ({"classifier": {"use": "cosine"}, "phases": []}, r"der needs 'resize', but the classifier cosine offers "),
        (
            {"penalties": [{"use": "less-forget"}]},
            r"less-forget needs 'features', but the backbone der offers pooled; ",
        ),
        ({"readouts": [{"use": "ncm"}]}, r"ncm needs 'features', but the backbone der offers pooled; "),
    ],
)
def test_what_does_not_go_with_it_is_told(other, message, tmp_path):
    recipe = {key: value for key, value in (DER | other).items() if value is not None}
    with pytest.raises(UserError, match=message):
        tiny_run(recipe, tmp_path)
