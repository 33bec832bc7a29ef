"""podnet32, thesis32, and the option final_relu: sizes, what a stage receives, how they begin."""

import pytest
import torch
from helpers.networks import unsettle
from torch import nn
from torch.nn.functional import max_pool2d, pad
from torch.testing import assert_close

from lwmfw.model.growing import Model, frozen_copy, parameter_count
from lwmfw_plugins.backbones.resnet import (
    PodNet32,
    ResNet20,
    ResNet32,
    ResNetOptions,
    Thesis32,
    Thesis32Options,
    WidthOptions,
)
from lwmfw_plugins.backbones.resnet18 import ResNet18, ResNet18Options
from lwmfw_plugins.classifiers._heads import LinearHead

WITH_OPTION = {
    "resnet20": lambda **options: ResNet20(ResNetOptions(width=4, **options)),
    "resnet32": lambda **options: ResNet32(ResNetOptions(width=4, **options)),
    "thesis32": lambda **options: Thesis32(Thesis32Options(width=4, **options)),
    "resnet18": lambda **options: ResNet18(ResNet18Options(**options)),
}
NARROW = {
    "podnet32": lambda: PodNet32(WidthOptions(width=4)),
    "thesis32": lambda: Thesis32(Thesis32Options(width=4)),
    "resnet20 without": lambda: ResNet20(ResNetOptions(width=4, final_relu=False)),
}


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def convolutions(network, size):
    return sum(isinstance(m, nn.Conv2d) and m.kernel_size == (size, size) for m in network.modules())


def test_podnet32_is_resnet32_in_other_stages():
    network = PodNet32(WidthOptions()).build(3)
    assert parameter_count(network) == parameter_count(ResNet32(ResNetOptions()).build(3)) == 463_504
    assert [len(stage) for stage in network.stages] == [5, 5, 4, 1]
    out = network(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape) for m in out.maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8), (2, 64, 8, 8)]
    assert out.features.shape == (2, 64)


def test_thesis32_has_30_layers_and_a_last_map_of_2x2():
    network = Thesis32(Thesis32Options()).build(3)
    assert parameter_count(network) == 825_296
    assert [len(stage) for stage in network.stages] == [5, 4, 3, 2]
    assert convolutions(network, 3) + 1 == 30  # with the classifier
    assert convolutions(network, 1) == 3
    out = network(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape) for m in out.maps] == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 128, 2, 2)]
    assert out.features.shape == (2, 128)


def test_podnet32_begins_as_its_stem():
    # each branch is zero at first, so that what is left are the shortcuts: every second position, zeros as new channels
    network, images = PodNet32(WidthOptions(width=4)).build(3), torch.randn(2, 3, 16, 16)
    x, out = network.stem(images), network(images)
    for actual, stride, added in zip(out.maps, (1, 2, 2, 1), (0, 4, 8, 0), strict=True):
        x = pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, added // 2, added // 2))
        assert_close(actual, x, rtol=0, atol=0)


def test_thesis32_begins_as_its_stem_and_projections():
    network, images = Thesis32(Thesis32Options(width=4)).build(3), torch.randn(2, 3, 16, 16)
    convolution, norm, _, _ = network.stem
    x, out = max_pool2d(norm(convolution(images)).relu(), 3, 2, 1), network(images)
    for actual, (first, *_) in zip(out.maps, network.stages, strict=True):
        x = first.projection(x).relu()
        assert_close(actual, x, rtol=0, atol=0)


@pytest.mark.parametrize("name", NARROW)
def test_a_map_is_what_the_next_stage_receives(name):
    network = unsettle(NARROW[name]().build(3)).eval()
    out = network(torch.randn(2, 3, 16, 16))
    for before, after, stage in zip(out.maps, out.raw_maps[1:], list(network.stages)[1:], strict=False):
        *inner, last = stage
        x = before
        for block in inner:
            x = block(x) if name == "podnet32" else block(x).relu()
        assert_close(last(x), after)


def test_podnet32_has_no_relu_after_any_addition():
    out = unsettle(PodNet32(WidthOptions(width=4)).build(3)).eval()(torch.randn(8, 3, 16, 16))
    for after, raw in zip(out.maps, out.raw_maps, strict=True):
        assert after is raw
        assert (after < 0).any()
    assert (out.features < 0).any()
    assert_close(out.features, out.maps[-1].flatten(2).mean(2))


@pytest.mark.parametrize("name", WITH_OPTION)
def test_final_relu_is_the_last_one_alone(name):
    outputs = []
    for final_relu in (True, False):
        torch.manual_seed(0)
        network = unsettle(WITH_OPTION[name](final_relu=final_relu).build(3)).eval()
        with torch.no_grad():
            outputs.append(network(torch.randn(4, 3, 16, 16)))
    usual, bare = outputs
    assert (usual.features >= 0).all()
    assert (bare.features < 0).any()
    assert_close(bare.maps[:-1], usual.maps[:-1], rtol=0, atol=0)
    assert_close(bare.raw_maps, usual.raw_maps, rtol=0, atol=0)
    assert bare.pooled is bare.maps[-1] is bare.raw_maps[-1]
    assert_close(bare.features, bare.pooled.flatten(2).mean(2))


def test_the_thesis_code_has_a_relu_after_the_first_block_of_each_stage_alone():
    network = Thesis32(Thesis32Options(width=4, inner_relu=False, final_relu=False)).build(3)
    assert [[block.relu for block in stage] for stage in network.stages] == [
        [True] + [False] * (blocks - 1) for blocks in (5, 4, 3, 2)
    ]
    images = torch.randn(4, 3, 16, 16)
    out = unsettle(network).eval()(images)
    assert all((part < 0).any() for part in (*out.maps, out.features))
    within = unsettle(Thesis32(Thesis32Options(width=4, inner_relu=False)).build(3)).eval()(images)
    assert (within.features >= 0).all()
    assert all((part < 0).any() for part in within.maps[:-1])


def test_resnet32_with_convolutions_as_shortcuts_has_the_parameters_of_ucirs_network():
    network = ResNet32(ResNetOptions(shortcut="convolution", final_relu=False)).build(3)
    assert parameter_count(network) == 466_256
    assert convolutions(network, 1) == 2


@pytest.mark.parametrize("name", NARROW)
def test_a_frozen_copy_has_no_normalisation_left_and_computes_the_same(name):
    body = unsettle(NARROW[name]().build(3))
    model = Model(body, LinearHead(body(torch.randn(2, 3, 16, 16)).features.shape[1]))
    model.grow(2)
    model.double().eval()
    old, images = frozen_copy(model), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    with torch.no_grad():
        expected, actual = model(images), old(images)
    for part in ("logits", "maps", "raw_maps", "pooled"):
        assert_close(getattr(actual, part), getattr(expected, part), rtol=1e-10, atol=1e-12)
