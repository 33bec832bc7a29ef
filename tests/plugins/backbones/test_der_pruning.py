"""der with prune: masks on channels (DER, section 3.3), and what is left of a network when they have been cut out."""

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers.networks import unsettle
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import lwmfw
from lwmfw import Backbone, Model, Penalty, Step, UserError, hookimpl
from lwmfw.model.growing import frozen_copy, parameter_count
from lwmfw.model.outputs import Form
from lwmfw.testing import check, tiny_recipe, tiny_run
from lwmfw_plugins.backbones._resnet import ResNet
from lwmfw_plugins.backbones.der import Der, DerOptions, cut_out, sharpness_at
from lwmfw_plugins.backbones.der._masks import Gate, GatedResNet, mask, passing
from lwmfw_plugins.backbones.der._network import DerNetwork
from lwmfw_plugins.classifiers._heads import LinearHead

MAIN = SimpleNamespace(main=True)

GATED = {"use": "der", "width": 4, "blocks": 1, "prune": True}
BALANCED = {"use": "balanced", "epochs": 1, "penalties": False, "fresh": True}
PRUNED = THREE_STEPS | {
    "backbone": GATED | {"sparsity": 400.0},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "12 exemplars", "select": {"use": "herding"}},
    "phases": [BALANCED],
    "training": {"epochs": 2},
}


def gated(blocks=2, width=4, seed=0):
    """A network of which about half of the channels do not pass, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = unsettle(GatedResNet(3, blocks, width)).double()
        for gate in net.gates():
            gate.scores.data.normal_()
    return net


def convolutions(net):
    return sum(module.weight.numel() for module in net.modules() if isinstance(module, torch.nn.Conv2d))


# masks


@settings(deadline=None)
@given(st.floats(-4, 4), st.floats(0.01, 8))
def test_a_mask_is_the_sigmoid_and_its_gradient_the_compensated_one(score, s):
    e = torch.tensor([score], dtype=torch.float64, requires_grad=True)
    found = mask(e, s)
    assert_close(found, (s * e).sigmoid())
    (gradient,) = torch.autograd.grad(found.sum(), e)
    plain = s * (s * e).sigmoid() * (1 - (s * e).sigmoid())
    factor = e.sigmoid() * (1 - e.sigmoid()) / (s * (s * e).sigmoid() * (1 - (s * e).sigmoid()))  # equation 9
    assert_close(gradient, (factor * plain).detach())


def test_very_sharp_masks_have_a_gradient_still():
    e = torch.tensor([-3.0, 3.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(mask(e, 1e5).sum(), e)
    assert_close(gradient, (e.sigmoid() * (1 - e.sigmoid())).detach())


def test_sharpness_rises_from_its_inverse_to_the_greatest():
    rising = [sharpness_at(batch, 5, 10.0) for batch in range(1, 6)]
    assert rising == pytest.approx([0.1 + 9.9 * (b - 1) / 4 for b in range(1, 6)])
    assert sharpness_at(7, 5, 10.0) == 10.0
    assert sharpness_at(1, 1, 10.0) == pytest.approx(0.1)


def test_channels_of_a_score_above_zero_pass_and_the_best_does_in_any_case():
    assert passing(torch.tensor([-1.0, 2.0, 0.0, 0.5])).tolist() == [False, True, False, True]
    assert passing(torch.tensor([-3.0, -1.0, -2.0])).tolist() == [False, True, False]


def test_a_gate_is_soft_in_training_and_binary_in_evaluation():
    gate, x = Gate(3), torch.ones(1, 3, 2, 2)
    gate.scores.data, gate.sharpness = torch.tensor([-1.0, 0.5, 1.0]), 2.0
    assert_close(gate(x)[0, :, 0, 0], (2 * gate.scores).sigmoid())
    assert gate.eval()(x)[0, :, 0, 0].tolist() == [0.0, 1.0, 1.0]


def sparsity_in_words(net, masks):
    """Equation 10 over all convolutions, channel by channel."""
    used, there = 0.0, 0.0

    def count(size, into, out):
        nonlocal used, there
        used += size * size * sum(a * b for a in into for b in out)
        there += size * size * len(into) * len(out)

    width = net.stem[0].weight.shape[0]
    count(3, [1.0] * 3, [1.0] * width)
    for block in net.blocks():
        reads, between = (masks(gate) for gate in block.pairs[::2])
        count(3, reads, between)
        count(3, between, masks(block.leaves) if isinstance(block.leaves, Gate) else [1.0] * block.channels)
    return used / there


def test_sparsity_is_the_share_of_weights_in_use():
    net = gated()
    for gate in net.gates():
        gate.sharpness = 1.7
    assert_close(net.sparsity().item(), sparsity_in_words(net, lambda gate: (1.7 * gate.scores).sigmoid().tolist()))
    gradients = torch.autograd.grad(net.sparsity(), [gate.scores for gate in net.gates()])
    assert all((gradient > 0).all() for gradient in gradients)


def test_sparsity_of_binary_masks_is_what_cutting_leaves():
    net = gated().eval()
    before, told = convolutions(net), float(net.sparsity())
    net.cut_out()
    assert convolutions(net) == round(told * before) < before


# cutting


def test_cutting_leaves_the_features_as_binary_masks_have_them():
    net, images = gated().eval(), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    masked = net(images)
    kept = net.cut_out()
    cut = net(images)
    assert 0 < len(kept) < 16
    assert_close(cut.features, masked.features[:, kept], rtol=1e-10, atol=1e-12)
    assert_close(cut.pooled, masked.pooled[:, kept], rtol=1e-10, atol=1e-12)
    gone = torch.ones(16, dtype=torch.bool).index_fill(0, kept, False)
    assert not masked.features[:, gone].any()


def test_where_every_channel_passes_nothing_is_cut():
    net, images = unsettle(GatedResNet(3, 1, 4)).eval(), torch.randn(2, 3, 8, 8)
    before, weights = net(images).features, convolutions(net)
    assert net.cut_out().tolist() == list(range(16))
    assert convolutions(net) == weights
    assert_close(net(images).features, before)


def test_modules_say_what_their_weights_are():
    net = gated()
    net.cut_out()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert (module.out_channels, module.in_channels) == module.weight.shape[:2]
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean)


def grown(cut=True):
    """A model of two branches, both cut or neither."""
    net = DerNetwork(3, 1, 4, gated=True)
    model = Model(net, LinearHead(16), form=Form(16, 0, 0, pooled=True), image=(3, 8, 8))
    model.grow(2)
    for step in (1, 2):
        if step == 2:
            net.grow(fresh=True)
            model.reshaped()
            model.grow(2)
        unsettle(net.newest)
        for gate in net.newest.gates():
            gate.scores.data.normal_()
        if cut:
            cut_out(model)
    return model.eval()


def test_logits_stay_what_binary_masks_made_them():
    model, images = grown(cut=False), torch.randn(2, 3, 8, 8)
    masked = model(images).logits
    cut_out(model)
    assert model.width < 32
    assert_close(model(images).logits, masked, rtol=1e-4, atol=1e-4)


def test_a_cut_network_is_copied_frozen_and_read_from_its_state():
    model, images = grown(), torch.randn(2, 3, 8, 8)
    logits = model(images).logits
    assert torch.equal(copy.deepcopy(model)(images).logits, logits)
    assert_close(frozen_copy(model)(images).logits, logits)
    other = grown(cut=False)
    missing, unexpected = other.take_state(model.state_dict())
    assert not missing
    assert not unexpected
    assert torch.equal(other.eval()(images).logits, logits)
    assert [p.stride() for p in other.parameters()] == [p.stride() for p in model.parameters()]
    copied = copy.deepcopy(grown(cut=False).backbone)
    copied.load_state_dict(model.backbone.state_dict())  # it takes shapes itself, not what it was copied from
    assert torch.equal(copied.eval()(images).features, model(images).features)


def test_without_gates_a_state_of_other_shapes_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        DerNetwork(3, 1, 4, gated=False).load_state_dict(DerNetwork(3, 1, 8, gated=False).state_dict())


def test_it_keeps_the_contract_of_backbones():
    check(Backbone("der", Der, DerOptions), {"channels": 1, "size": 28}, width=4, prune=True)


def test_a_branch_that_is_cut_begins_fresh():
    assert DerOptions(prune=True).begin == "fresh"
    assert DerOptions().begin == "previous"
    with pytest.raises(ValueError, match=r"cannot begin as one that was cut; set begin = 'fresh', or prune = false"):
        DerOptions(prune=True, begin="previous")


# runs


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return tiny_run(PRUNED, tmp_path_factory.mktemp("pruned"))


def test_every_branch_is_cut_the_first_one_too(pruned):
    branches, whole = pruned.run.model.backbone.branches, parameter_count(ResNet(3, 1, 4))
    assert all(parameter_count(branch) < 0.8 * whole for branch in branches)
    widths = [len(branch.gates()[-1].kept) for branch in branches]
    assert max(widths) < 16
    assert pruned.run.model.classifier.weight.shape == (6, sum(widths))
    cut = [parameter_count(branch) for branch in branches]
    assert [step.parameters for step in pruned.results.steps] == [
        sum(cut[:k]) + 2 * k * (sum(widths[:k]) + 1) for k in (1, 2, 3)
    ]


def test_sparsity_counts_in_the_main_phase_of_every_step(pruned):
    rows = (pruned.path / "metrics.jsonl").read_text().splitlines()
    terms = [("sparsity" in row, '"main"' in row) for row in rows]
    assert terms == [(main, main) for _, main in terms]
    assert {main for _, main in terms} == {True, False}


def test_masks_sharpen_within_each_epoch(tmp_path):
    seen = []

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self, model):
            seen.append(model.backbone.newest.gates()[0].sharpness)

    backbone = GATED | {"sharpness": 10.0}
    tiny_run(
        PRUNED | {"backbone": backbone, "penalties": [{"use": "watch"}]},
        tmp_path,
        components=[Penalty("watch", Watch)],
    )
    assert seen[:6] == pytest.approx([0.1, 0.1 + 9.9 / 2, 10.0] * 2)  # 6 exemplars and 32 images in batches of 16


def test_scores_do_not_decay():
    component, model = Der(DerOptions(width=4, blocks=1, prune=True)), grown(cut=False)
    (group,) = component.group_parameters(Step(1, range(2), range(2), 1), MAIN, model, "der", torch.Generator())
    assert group["weight_decay"] == 0.0
    assert [id(p) for p in group["params"]] == [id(gate.scores) for gate in model.backbone.newest.gates()]


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(after, pruned, tmp_path):
    resumed = interrupted(tmp_path, PRUNED, after=after)
    ours, theirs = pruned.run.model.state_dict(), resumed.run.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert [s.confusion for s in pruned.results.steps] == [s.confusion for s in resumed.results.steps]


def test_an_opened_run_gives_the_same_logits(pruned):
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(lwmfw.open_run(pruned.path).model(images).logits, pruned.run.model.eval()(images).logits)
    first = lwmfw.open_run(pruned.path).model_at(1)
    assert first.width < 16
    assert first(images).logits.shape == (4, 2)


def test_a_first_step_is_taken_over_as_it_was_cut(pruned, tmp_path):
    recipe = tiny_recipe(PRUNED | {"phases": [BALANCED | {"epochs": 2}]}, tmp_path)
    taken = lwmfw.run(recipe, out=tmp_path / "run", device="cpu", from_run=pruned.path)
    assert taken.steps[0].confusion == pruned.results.steps[0].confusion
    assert taken.steps[0].parameters == pruned.results.steps[0].parameters


def test_bf16_trains(tmp_path):
    run = tiny_run(PRUNED | {"training": {"precision": "bf16"}}, tmp_path)
    assert run.results.complete


def test_it_goes_without_a_balanced_phase(tmp_path):
    run = tiny_run(PRUNED | {"phases": []}, tmp_path)
    assert all(branch.gates()[0].closed for branch in run.run.model.backbone.branches)


def test_what_is_wrong_in_a_recipe_is_told(tmp_path):
    with pytest.raises(UserError, match=r"backbone \(der, .* begin as one that was cut, .*; set begin = 'fresh'"):
        tiny_run(PRUNED | {"backbone": GATED | {"begin": "previous"}}, tmp_path)
