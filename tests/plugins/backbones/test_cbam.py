"""CBAM: the gates against a slow reference, where they stand, and that they are really in the path."""

import math

import pytest
import torch
from helpers.networks import unsettle
from torch import nn
from torch.testing import assert_close

from lwmfw.model.growing import Model, frozen_copy, parameter_count
from lwmfw_plugins.backbones._cbam import Cbam, ChannelGate
from lwmfw_plugins.backbones.resnet import ResNet20, ResNetOptions
from lwmfw_plugins.backbones.resnet18 import ResNet18, ResNet18Options
from lwmfw_plugins.backbones.resnet_cbam import (
    ResNet18Cbam,
    ResNet18CbamOptions,
    ResNet20Cbam,
    ResNet32Cbam,
    ResNetCbamOptions,
    Thesis32Cbam,
    Thesis32CbamOptions,
)
from lwmfw_plugins.classifiers._heads import LinearHead

FORMS = pytest.mark.parametrize("form", ["original", "light"])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def gates(form, channels=6, floor=2):
    module = unsettle(Cbam(channels, ratio=16, floor=floor, form=form)).double().eval()
    for layer in (module.channel.mlp[0], module.channel.mlp[2]):
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
    return module


def network(form, **options):
    return unsettle(ResNet20Cbam(ResNetCbamOptions(width=4, form=form, **options)).build(3))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def slow_channel_gate(module, image):
    """One factor per channel of an image (C, H, W), by loops over lists."""
    first, last = module.channel.mlp[0], module.channel.mlp[2]

    def layer(linear, values):
        rows = linear.weight.tolist()
        biases = [0.0] * len(rows) if linear.bias is None else linear.bias.tolist()
        return [b + sum(w * v for w, v in zip(row, values, strict=True)) for row, b in zip(rows, biases, strict=True)]

    scores = [0.0] * len(image)
    for pool in (lambda values: sum(values) / len(values), max):
        hidden = [max(0.0, h) for h in layer(first, [pool(channel.flatten().tolist()) for channel in image])]
        scores = [score + more for score, more in zip(scores, layer(last, hidden), strict=True)]
    return [sigmoid(score) for score in scores]


def slow_spatial_gate(module, image, form):
    """One factor per position of an image (C, H, W)."""
    of_first, of_second = module.spatial.score[0].weight[0].tolist()
    height, width = image.shape[1:]

    def pooled(y, x):
        column = image[:, y, x].tolist()
        mean, greatest = sum(column) / len(column), max(column)
        return (greatest, mean) if form == "original" else (mean, greatest)

    def factor(y, x):
        score = 0.0
        for i in range(7):
            for j in range(7):
                if 0 <= y + i - 3 < height and 0 <= x + j - 3 < width:
                    a, b = pooled(y + i - 3, x + j - 3)
                    score += of_first[i][j] * a + of_second[i][j] * b
        if form == "original":
            norm = module.spatial.score[1]
            mean, deviation = norm.running_mean.item(), math.sqrt(norm.running_var.item() + 1e-5)
            score = (score - mean) / deviation * norm.weight.item() + norm.bias.item()
        return sigmoid(score)

    return [[factor(y, x) for x in range(width)] for y in range(height)]


# the gates


@FORMS
def test_gates_are_the_papers_formulas(form):
    module, images = gates(form), torch.randn(2, 6, 5, 4, dtype=torch.float64)
    for image, actual in zip(images, module(images), strict=True):
        channels = torch.tensor(slow_channel_gate(module, image), dtype=torch.float64)
        gated = image * channels[:, None, None]
        positions = torch.tensor(slow_spatial_gate(module, gated, form), dtype=torch.float64)
        assert_close(actual, gated * positions)


@FORMS
def test_gates_compute_the_same_in_either_memory_format(form):
    module, images = gates(form), torch.randn(2, 6, 5, 4, dtype=torch.float64)
    actual = module(images.to(memory_format=torch.channels_last))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert_close(actual, module(images))


@FORMS
def test_gates_can_be_differentiated_twice(form):
    # as L_AD does at a stage before the last
    module, images = gates(form, channels=3), torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, images)
    assert torch.autograd.gradgradcheck(module, images)


def test_a_peak_opens_a_channel_and_a_shift_of_mass_does_not():
    # equal means, unequal peaks: an average in the maximum's place would not tell them apart
    gate = ChannelGate(1, 1, bias=False)
    for layer in (gate.mlp[0], gate.mlp[2]):
        nn.init.ones_(layer.weight)
    flat, peak = torch.full((1, 1, 2, 2), 1.0), torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
    assert gate(flat).item() == pytest.approx(sigmoid(1 + 1))
    assert gate(peak).item() == pytest.approx(sigmoid(1 + 4))
    assert torch.equal(gate(peak.roll(1, 3)), gate(peak))


@pytest.mark.parametrize(("channels", "floor", "hidden"), [(16, 1, 1), (16, 4, 4), (64, 4, 4), (128, 4, 8)])
def test_a_channel_gate_has_a_sixteenth_of_the_channels_hidden_but_no_fewer_than_the_floor(channels, floor, hidden):
    assert Cbam(channels, ratio=16, floor=floor, form="light").channel.mlp[0].out_features == hidden


def test_the_original_form_begins_with_the_same_gate_at_every_position():
    fresh = Cbam(6, ratio=16, floor=2, form="original")
    assert torch.equal(fresh.spatial(torch.randn(2, 6, 5, 5)), torch.full((2, 1, 5, 5), 0.5))


# the networks


def gate_parameters(channels, hidden, form):
    mlp, convolution = 2 * channels * hidden, 2 * 7 * 7
    return mlp + convolution + (hidden + channels + 2 if form == "original" else 0)


@FORMS
@pytest.mark.parametrize(
    ("backbone", "options", "plain", "blocks"),
    [
        (ResNet20Cbam, ResNetCbamOptions, 269_072, {16: 3, 32: 3, 64: 3}),
        (ResNet32Cbam, ResNetCbamOptions, 463_504, {16: 5, 32: 5, 64: 5}),
        (Thesis32Cbam, Thesis32CbamOptions, 825_296, {16: 5, 32: 4, 64: 3, 128: 2}),
        (ResNet18Cbam, ResNet18CbamOptions, 11_176_512 - 64 * 3 * 40, {64: 2, 128: 2, 256: 2, 512: 2}),
    ],
)
def test_every_block_has_its_gates(backbone, options, plain, blocks, form):
    body = backbone(options(form=form)).build(3)
    more = sum(count * gate_parameters(c, max(c // 16, 4), form) for c, count in blocks.items())
    assert parameter_count(body) == plain + more


def test_the_thesis_network_has_the_thesis_parameters():
    options = Thesis32CbamOptions(form="light", ratio=16, floor=1)
    assert parameter_count(Thesis32Cbam(options).build(3)) == 832_972


@pytest.mark.parametrize(
    ("gated", "plain"),
    [
        (ResNet20Cbam(ResNetCbamOptions(width=4)), ResNet20(ResNetOptions(width=4))),
        (ResNet18Cbam(ResNet18CbamOptions(stem="large")), ResNet18(ResNet18Options(stem="large"))),
    ],
    ids=["resnet20", "resnet18"],
)
def test_a_gated_network_begins_as_the_plain_one_of_the_same_seed(gated, plain):
    states = []
    for backbone in (gated, plain):
        torch.manual_seed(1)
        states.append(backbone.build(3).state_dict())
    own = {name: value for name, value in states[0].items() if ".body.3." not in name}
    assert_close(own, states[1], rtol=0, atol=0)


@FORMS
def test_the_gates_stand_after_the_second_norm_and_before_the_addition(form):
    body, x = network(form).eval(), torch.randn(2, 4, 6, 6)
    block = body.stages[1][0]
    convolution, relu, second, gate = block.body
    assert isinstance(gate, Cbam)
    assert_close(block(x), gate(second(relu(convolution(x)))) + block.shortcut(x))


@FORMS
def test_the_gradient_reaches_every_gate_and_every_gate_moves_the_features(form):
    body, images = network(form).eval(), torch.randn(8, 3, 12, 12)
    before = body(images).features
    before.square().sum().backward()
    found = [module for module in body.modules() if isinstance(module, Cbam)]
    assert len(found) == 9
    for module in found:
        assert all(p.grad.abs().max() > 0 for p in module.parameters())
        for weight in (module.channel.mlp[2].weight, module.spatial.score[0].weight):
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.neg_()
                assert (body(images).features - before).abs().max() > 1e-4
                weight.copy_(kept)


@FORMS
def test_a_frozen_copy_has_no_normalisation_left_and_computes_the_same(form):
    model = Model(network(form), LinearHead(16))
    model.grow(2)
    model.double().eval()
    old, images = frozen_copy(model), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    with torch.no_grad():
        expected, actual = model(images), old(images)
    assert_close(actual.logits, expected.logits, rtol=1e-10, atol=1e-12)
    assert_close(actual.raw_maps, expected.raw_maps, rtol=1e-10, atol=1e-12)


def test_without_the_final_relu_features_of_a_gated_network_can_be_negative():
    out = network("original", final_relu=False).eval()(torch.randn(8, 3, 12, 12))
    assert (out.features < 0).any()
    assert out.pooled is out.maps[-1] is out.raw_maps[-1]
