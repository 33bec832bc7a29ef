"""Gradients lie in memory as the activations they belong to, or BatchNorm's backward pass is several times slower."""

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from lwmfw import Batch, Features, Step
from lwmfw.model.growing import build_model, frozen_copy
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import Pair, penalty_terms
from lwmfw_plugins.backbones._cbam import Cbam
from lwmfw_plugins.backbones._resnet import Block, ProjectedBlock
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead, ProxyHead
from lwmfw_plugins.penalties.pod import pod_distance

CATALOGUE = discover()
HEADS = {
    "linear": LinearHead,
    "cosine": lambda features: CosineHead(features, 2.0),
    "proxies": lambda features: ProxyHead(features, 2.0, proxies=3, scaling=1.0, gamma=1.0, learned_scale=True),
}
PENALTIES = [
    ("L_D", {}), ("L_AD", {}), ("L_AD", {"layer": 1}), ("KD", {}), ("POD-flat", {}), ("less-forget", {}),
    ("margin-ranking", {}), *(("POD", {"mode": m}) for m in ("spatial", "width", "height", "channels", "gap", "pixel")),
]  # fmt: skip
BACKBONES = [
    ("resnet20", {}), ("resnet20", {"final_relu": False}), ("resnet32", {"final_relu": False}), ("podnet32", {}),
    ("thesis32", {"final_relu": False}), ("resnet18", {"final_relu": False}),
    ("resnet18", {"final_relu": False, "stem": "large"}), ("resnet20-cbam", {"final_relu": False}),
    ("resnet32-cbam", {"final_relu": False}), ("thesis32-cbam", {"form": "light"}),
    ("resnet18-cbam", {"final_relu": False}), ("torchvision", {"model": "resnet18"}),
    ("torchvision", {"model": "regnet_x_400mf"}), ("torchvision", {"model": "densenet121"}),
    ("torchvision", {"model": "efficientnet_b0"}), ("torchvision", {"model": "mnasnet0_5"}),
    ("torchvision", {"model": "mobilenet_v2"}), ("torchvision", {"model": "shufflenet_v2_x0_5"}), ("pnn", {}),
]  # fmt: skip


def names(cases):
    return ["-".join([name, *map(str, options.values())]) for name, options in cases]


aten = torch.ops.aten
BATCH_NORM = {aten.native_batch_norm_backward.default}
SUMS = {aten.add.Tensor, aten.add_.Tensor}


class Watch(TorchDispatchMode):
    """Notes of every call of some operators whether their first two maps lie alike."""

    def __init__(self, operators):
        super().__init__()
        self.operators, self.alike = operators, []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator in self.operators and all(isinstance(a, torch.Tensor) and a.ndim == 4 for a in args[:2]):
            formats = (torch.channels_last, torch.contiguous_format)
            self.alike.append(any(all(t.is_contiguous(memory_format=f) for t in args[:2]) for f in formats))
        return operator(*args, **kwargs or {})


def component(kind, name, options):
    found = CATALOGUE.find(kind, name)
    return found.factory(found.options(**options))


def body(name, options):
    return component("backbone", name, options).build(3)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pair(backbone, head="linear", size=32, dtype=torch.float32):
    """A model in training beside its predecessor, and what both say of four images of old classes and new ones."""
    images = torch.randn(4, 3, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    features = backbone.to(dtype).eval()(images).features.shape[1]
    model = build_model(backbone, HEADS[head](features), torch.device("cpu"), bf16=False)
    model.grow(2)
    old = frozen_copy(model.to(dtype))
    model.grow(2)
    model.to(dtype).train()
    labels = torch.arange(4)
    batch = Batch(images, labels, labels < 2)
    theirs = old(images.detach().requires_grad_()).detached()
    return Pair(model, old, Step(2, range(2, 4), range(4), 2), batch, model(images), theirs)


def watched(loss, operators=BATCH_NORM):
    with Watch(operators) as watch:
        loss.backward()
    return watch.alike


@pytest.mark.parametrize(("name", "options"), BACKBONES, ids=names(BACKBONES))
def test_gradients_of_what_a_backbone_offers_lie_as_its_activations(name, options):
    new = pair(body(name, options), size=64 if name == "torchvision" or "stem" in options else 32).new
    offered = [*new.maps, *new.raw_maps, new.pooled]
    loss = new.logits.square().sum() + sum(m.sum(2).square().sum() + m.sum(3).square().sum() for m in offered)
    alike = watched(loss)
    assert len(alike) > 10
    assert all(alike)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["podnet32", "resnet32"])
def test_gradients_of_every_head_lie_as_activations(name, head):
    outputs = pair(body(name, {} if name == "podnet32" else {"final_relu": False}), head).new
    assert all(watched(torch.nn.functional.cross_entropy(outputs.logits, torch.arange(4))))


@pytest.mark.parametrize("backbone", ["podnet32", "resnet20"])
@pytest.mark.parametrize(("name", "options"), PENALTIES, ids=names(PENALTIES))
def test_gradients_of_every_penalty_lie_as_activations(name, options, backbone):
    given = pair(body(backbone, {} if backbone == "podnet32" else {"final_relu": False}), "cosine")
    (term,) = penalty_terms(component("penalty", name, options), given).values()
    alike = watched(term)
    assert alike
    assert all(alike)


@pytest.mark.parametrize(("name", "options"), BACKBONES[:4], ids=names(BACKBONES[:4]))
def test_where_gradients_lie_does_not_change_them(name, options, monkeypatch):
    def gradients():
        torch.manual_seed(0)
        given = pair(body(name, options | {"width": 4}), "cosine", size=16, dtype=torch.float64)
        terms = [given.new.logits.square().sum()]
        for penalty, chosen in (("POD", {}), ("less-forget", {}), ("L_AD", {}), ("L_AD", {"layer": 2})):
            terms += penalty_terms(component("penalty", penalty, chosen), given).values()
        return torch.autograd.grad(sum(terms), list(given.model.parameters()))

    mended = gradients()
    monkeypatch.setattr("lwmfw.model.growing.keep_gradients_format", lambda features: None)
    assert_close(mended, gradients(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["spatial", "width", "height", "channels", "pixel"])
def test_the_gradient_of_pod_lies_as_its_maps(mode):
    new, old = (torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last) for _ in range(2))
    loss = pod_distance(new.requires_grad_(), old, mode)
    (gradient,) = torch.autograd.grad(loss, new)
    assert gradient.stride() == new.stride()


@pytest.mark.parametrize("form", ["original", "light"])
def test_gradients_that_meet_in_a_gate_lie_alike(form):
    gates = Cbam(16, ratio=4, floor=1, form=form)
    maps = torch.randn(4, 16, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    alike = watched(gates(maps).square().sum(), SUMS)
    assert len(alike) > 2
    assert all(alike)


@pytest.mark.parametrize("kind", [Block, ProjectedBlock])
def test_the_gradient_of_a_block_that_halves_the_resolution_lies_as_its_input(kind):
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = kind(4, 8, 2).to(memory_format=torch.channels_last)(x)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert gradient.stride() == x.stride()


class Alone(nn.Module):
    """A stranger's network that ends in a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, images):
        pooled = self.layers(images)
        return Features(pooled.mean((2, 3)), [pooled], [], pooled)


@contextmanager
def no_collection():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_maps_die_with_their_outputs():
    model = build_model(Alone(), LinearHead(4), torch.device("cpu"), bf16=False)
    model.grow(2)
    with no_collection():
        outputs = model(torch.randn(2, 3, 4, 4))
        map_ = weakref.ref(outputs.pooled)
        del outputs
        assert map_() is None


@pytest.mark.parametrize("size", [1, 4])
def test_maps_of_a_stranger_with_and_without_gradients(size):
    model = build_model(Alone(), LinearHead(4), torch.device("cpu"), bf16=False)
    model.grow(2)
    images = torch.randn(2, 3, size, size)
    assert watched(model(images).logits.square().sum()) == [True]
    with torch.no_grad():
        assert not model(images).pooled.requires_grad
    assert not frozen_copy(model)(images).pooled.requires_grad
