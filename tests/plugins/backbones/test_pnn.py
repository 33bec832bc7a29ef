"""pnn: lateral connections against slow loops, and that old columns stay as they are, to the bit."""

import copy
import itertools

import pytest
import torch
from helpers.command import lwmfw
from helpers.networks import unsettle
from helpers.runs import THREE_STEPS, interrupted
from torch import nn
from torch.nn.functional import conv2d
from torch.testing import assert_close

from lwmfw import Observer, hookimpl, open_run
from lwmfw.errors import UserError
from lwmfw.model.growing import Model, evaluating, frozen_copy, parameter_count
from lwmfw.testing import check, tiny_run
from lwmfw_plugins.backbones._resnet import ResNet
from lwmfw_plugins.backbones.pnn import Pnn, PnnOptions, register_components
from lwmfw_plugins.backbones.pnn._columns import SMALL, ProgressiveNetwork, lateral
from lwmfw_plugins.classifiers._heads import StepHeads

PNN = THREE_STEPS | {
    "backbone": {"use": "pnn", "blocks": 1, "width": 4},
    "classifier": {"use": "step-heads"},
    "objective": {"use": "cross_entropy", "over": "new"},
    "training": {"weight_decay": 0.01},
}
FIXED = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def network(columns=3, *, blocks=1, width=4, later=4):
    """One with statistics and factors that it could have after training."""
    grown = ProgressiveNetwork(3, blocks, width, later)
    for _ in range(columns - 1):
        grown.add_column()
    with torch.no_grad():
        for column in grown.columns:
            for adapter in column.adapters:
                adapter.scales.uniform_(0.5, 1.5)
                adapter.project.bias.normal_()
    return unsettle(grown)


def watched(tables, folder):
    """Three steps: after each of them the logits of fixed images, and the state of the model."""
    logits, states = [], []

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, model):
            with evaluating(model):
                logits.append(model(FIXED).logits)
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    folder.mkdir(exist_ok=True)
    done = tiny_run(PNN | {"observers": [{"use": "watch"}]} | tables, folder, components=[Observer("watch", Watch)])
    return done, logits, states


# lateral connections


def test_lateral_connections_are_equation_2():
    own, earlier, scales = normal(2, 3, 2, 2), [normal(2, 2, 2, 2), normal(2, 4, 2, 2)], normal(2)
    project, bias, back = normal(3, 6), normal(3), normal(3, 3)
    actual = lateral(own, earlier, scales, project[..., None, None], bias, back[..., None, None])
    for image, y, x in itertools.product(range(2), repeat=3):
        seen = [float(a * v) for a, h in zip(scales, earlier, strict=True) for v in h[image, :, y, x]]
        hidden = [max(0.0, float(bias[i]) + sum(float(project[i, j]) * seen[j] for j in range(6))) for i in range(3)]
        for c in range(3):
            expected = float(own[image, c, y, x]) + sum(float(back[c, i]) * hidden[i] for i in range(3))
            assert actual[image, c, y, x].item() == pytest.approx(expected)


def test_lateral_connections_can_be_differentiated():
    earlier = [normal(1, 2, 2, 2), normal(1, 1, 2, 2)]
    weights = [normal(1, 2, 2, 2), normal(2), normal(2, 3, 1, 1), normal(2), normal(2, 2, 1, 1)]
    own, *others = [value.requires_grad_() for value in weights]
    assert torch.autograd.gradcheck(lambda own, *others: lateral(own, earlier, *others), [own, *others])


def test_scales_begin_small_at_random_and_apart():
    body = ProgressiveNetwork(3, 1, 4, 4)
    for _ in range(3):
        body.add_column()
    assert not body.columns[0].adapters
    scales = torch.cat([adapter.scales for adapter in body.columns[3].adapters])
    assert len(scales.unique()) == 9
    assert ((scales > 0) & (scales < SMALL)).all()


# the network


def test_the_first_column_is_the_residual_network():
    body = unsettle(Pnn(PnnOptions(width=4)).build(3)).eval()
    plain = ResNet(3, 3, 4).eval()
    plain.load_state_dict(body.columns[0].network.state_dict())
    assert_close(body(FIXED).features, plain(FIXED).features)
    assert torch.equal(body(FIXED).pooled, plain(FIXED).pooled)


def test_a_later_column_receives_the_earlier_ones_at_the_entrance_of_every_stage():
    body, images = network(later=6).double().eval(), FIXED.double()
    ends = []
    for column in body.columns:
        own = [column.network.stem(images)]
        for place, stage in enumerate(column.network.stages):
            x = own[-1]
            if ends:
                adapter = column.adapters[place]
                seen = torch.cat([a * others[place] for a, others in zip(adapter.scales, ends, strict=True)], 1)
                hidden = conv2d(seen, adapter.project.weight, adapter.project.bias).relu()
                x = x + conv2d(hidden, adapter.back.weight)
            for block in stage:
                x = block(x).relu()
            own.append(x)
        ends.append(own)
    out = body(images)
    assert_close(out.pooled, torch.cat([own[-1] for own in ends], 1))
    assert_close(out.features, torch.cat([own[-1].flatten(2).mean(2) for own in ends], 1))
    assert out.features.shape == (8, 16 + 24 + 24)


def test_every_adapter_and_every_earlier_column_moves_the_newest_features():
    body = network().eval()
    before = body(FIXED).features[:, -16:]
    for adapter in body.columns[2].adapters:
        for earlier in range(2):
            kept = adapter.scales.detach().clone()
            with torch.no_grad():
                adapter.scales[earlier] = 0
                assert (body(FIXED).features[:, -16:] - before).abs().max() > 1e-4
                adapter.scales.copy_(kept)


def adapters(width, earlier):
    """Parameters of a column's three adapters."""
    return sum(len(earlier) + c * sum(m * w for w in earlier) + c + c * c for m in (1, 1, 2) for c in [m * width])


def test_columns_of_one_width_add_a_network_and_its_adapters():
    body, expected = ProgressiveNetwork(3, 3, 16, 16), 269_072
    for earlier in range(3):
        assert parameter_count(body) == expected
        body.add_column()
        expected += 269_072 + adapters(16, [16] * (earlier + 1))


def test_later_columns_can_be_of_another_width():
    body = Pnn(PnnOptions(blocks=1, width=8, width_later=4)).build(3)
    first = parameter_count(body)
    body.add_column()
    body.add_column()
    assert first == parameter_count(ResNet(3, 1, 8))
    more = 2 * parameter_count(ResNet(3, 1, 4)) + adapters(4, [8]) + adapters(4, [8, 4])
    assert parameter_count(body) == first + more
    assert body(FIXED).features.shape == (8, 32 + 16 + 16)


def test_the_newest_column_alone_learns_and_is_in_training_mode():
    body = network().train()
    before = copy.deepcopy(body.state_dict())
    body(FIXED).features.square().sum().backward()
    *old, newest = body.columns
    assert all(p.grad.abs().max() > 0 for p in newest.parameters())
    assert not any(p.requires_grad or p.grad is not None for column in old for p in column.parameters())
    assert not any(module.training for column in old for module in column.modules())
    changed = {name.split(".")[1] for name, value in body.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2"}


def test_copies_compute_the_same():
    model = Model(network(), StepHeads(48))
    model.grow(2)
    model.double().eval()
    images = FIXED.double()
    with torch.no_grad():
        expected, copied, old = model(images), copy.deepcopy(model)(images), frozen_copy(model)
    assert torch.equal(copied.logits, expected.logits)
    assert torch.equal(copied.pooled, expected.pooled)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    assert_close(old(images).logits, expected.logits, rtol=1e-10, atol=1e-12)
    assert_close(old(images).pooled, expected.pooled, rtol=1e-10, atol=1e-12)


def test_it_keeps_the_contract():
    (record,) = register_components()
    check(record, {"channels": 1, "size": 28}, blocks=1, width=4)


# runs


def test_old_columns_and_what_is_said_of_old_classes_stay_to_the_bit(tmp_path):
    done, logits, states = watched({}, tmp_path)
    for earlier, later in itertools.pairwise(range(3)):
        known = logits[earlier].shape[1]
        assert torch.equal(logits[later][:, :known], logits[earlier])
        assert all(torch.equal(states[later][name], value) for name, value in states[earlier].items())
    assert any("running_mean" in name for name in states[0])
    counted = [step.parameters for step in done.results.steps]
    assert counted == sorted(set(counted))


def test_beside_one_head_for_all_classes_old_scores_change(tmp_path):
    _, logits, states = watched({"classifier": {"use": "linear"}}, tmp_path)
    body = {name: value for name, value in states[0].items() if name.startswith("backbone.")}
    assert all(torch.equal(states[1][name], value) for name, value in body.items())
    assert not torch.allclose(logits[1][:, :2], logits[0])


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one_and_opens_again(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, cut = tiny_run(PNN, tmp_path / "whole"), interrupted(tmp_path, PNN, after=2)
    states = [run.run.model.state_dict() for run in (whole, cut)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert [step.confusion for step in cut.results.steps] == [step.confusion for step in whole.results.steps]
    opened, kept = open_run(whole.path).model, whole.run.model
    with evaluating(opened), evaluating(kept):
        assert torch.equal(opened(FIXED).logits, kept(FIXED).logits)


def test_a_step_begins_from_a_column_that_depends_on_seed_and_step_alone(tmp_path):
    still = {"training": {"epochs": 0, "first": {"epochs": 1}}}
    trained, _, _ = watched(still, tmp_path / "one")
    other, _, _ = watched(still | {"training": {"epochs": 0, "first": {"epochs": 2}}}, tmp_path / "two")
    ones, others = trained.run.model.backbone.columns, other.run.model.backbone.columns
    same = [torch.equal(a.network.stem[0].weight, b.network.stem[0].weight) for a, b in zip(ones, others, strict=True)]
    assert same == [False, True, True]
    assert not torch.equal(ones[1].network.stem[0].weight, ones[2].network.stem[0].weight)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"classifier": {"use": "cosine"}},
            "lwmfw 0.1.0: pnn needs 'resize', but the classifier cosine offers similarities; choose another "
            "classifier, such as linear",
        ),
        (
            {"readouts": [{"use": "ncm"}]},
            "lwmfw 0.1.0: ncm needs 'features', but the backbone pnn offers pooled; choose another backbone, "
            "such as podnet32",
        ),
    ],
)
def test_what_does_not_go_with_a_growing_network_is_refused(tables, message, tmp_path):
    with pytest.raises(UserError) as error:
        tiny_run(PNN | tables, tmp_path)
    assert str(error.value).splitlines()[-1].endswith(message)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_grown_network_can_be_exported(form, tmp_path):
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    done = tiny_run(PNN, tmp_path)
    written = lwmfw("export", done.path, "--format", form)
    assert (written.returncode, written.stderr) == (0, "")
    assert "scores differ from the run's by " in written.stdout
