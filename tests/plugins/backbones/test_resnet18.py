"""resnet18 against its published size and torchvision's network of the same weights."""

import pytest
import torch
import torchvision
from helpers.networks import unsettle
from torch import nn
from torch.testing import assert_close

from lwmfw.model.growing import Model, frozen_copy, parameter_count
from lwmfw_plugins.backbones.resnet18 import ResNet18, ResNet18Options
from lwmfw_plugins.classifiers._heads import LinearHead


def build(stem, channels=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return unsettle(ResNet18(ResNet18Options(stem=stem)).build(channels)).eval()


def theirs(ours, stem):
    """torchvision's network with our weights: both list the same layers in the same order."""
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    if stem == "small":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    network.load_state_dict(dict(zip(network.state_dict(), ours.state_dict().values(), strict=True)))
    return network.eval()


def test_it_has_the_published_parameters():
    assert parameter_count(build("large")) == 11_176_512
    # a stem of 3x3 instead of 7x7
    assert parameter_count(build("small")) == 11_176_512 - 64 * 3 * (49 - 9)
    assert parameter_count(build("small", channels=1)) == 11_176_512 - 64 * 3 * 49 + 64 * 9


@pytest.mark.parametrize(("stem", "size"), [("small", 16), ("large", 64)])
def test_it_computes_what_torchvisions_network_does(stem, size):
    ours, images = build(stem), torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert_close(ours(images).features, theirs(ours, stem)(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stem", "first"), [("small", 32), ("large", 8)])
def test_it_offers_the_ends_of_four_stages(stem, first):
    with torch.no_grad():
        out = build(stem)(torch.randn(1, 3, 32, 32))
    sides = [first, first // 2, first // 4, first // 8]
    assert [tuple(m.shape) for m in out.maps] == [(1, 64 << n, side, side) for n, side in enumerate(sides)]
    for after, raw in zip(out.maps, out.raw_maps, strict=True):
        assert (raw < 0).any()
        assert_close(after, raw.relu(), rtol=0, atol=0)
    assert out.pooled is out.maps[-1]


def test_a_frozen_copy_has_no_normalisation_left_and_computes_the_same():
    model = Model(build("large"), LinearHead(512))
    model.grow(2)
    model.double().eval()
    old, images = frozen_copy(model), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    with torch.no_grad():
        assert_close(old(images).logits, model(images).logits, rtol=1e-10, atol=1e-12)
