"""Networks, heads and objectives against formulas and slow loops, and the frozen copy that the next step calls old."""

import math

import pytest
import torch
from helpers.networks import unsettle
from torch import nn
from torch.nn.functional import conv2d
from torch.testing import assert_close

from lwmfw import Features, ObjectiveOptions, Outputs
from lwmfw.model.growing import Model, build_model, evaluating, frozen_copy, model_bytes, parameter_count
from lwmfw_plugins.backbones._resnet import Block, ResNet
from lwmfw_plugins.backbones.resnet import ResNet20, ResNet32, ResNetOptions
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead, ProxyHead
from lwmfw_plugins.objectives.bce import BinaryCrossEntropy
from lwmfw_plugins.objectives.cross_entropy import CrossEntropy

HEADS = {
    "linear": lambda features: LinearHead(features),
    "cosine": lambda features: CosineHead(features, 2.0),
    "proxies": lambda features: ProxyHead(features, 2.0, proxies=3, scaling=1.5, gamma=0.5, learned_scale=True),
}


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def small_model(head="linear", classes=3, blocks=2, backbone=None):
    body = backbone or ResNet(3, blocks, width=4)
    model = build_model(body, HEADS[head](16), torch.device("cpu"), bf16=False)
    model.grow(classes)
    return unsettle(model).double()


def images(count=4, size=8):
    return torch.randn(count, 3, size, size, dtype=torch.float64)


def train_a_little(model, updates=3):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.train()
    for _ in range(updates):
        optimizer.zero_grad()
        model(images()).logits.square().sum().backward()
        optimizer.step()
    return model


# backbones


def residual_parameters(blocks, width, channels):
    """He et al., section 4.2: a stem, 2n convolutions of 3x3 a stage with BatchNorm's two vectors each, no bias."""

    def layer(before, after):
        return 3 * 3 * before * after + 2 * after

    total, before = layer(channels, width), width
    for after in (width, 2 * width, 4 * width):
        total += layer(before, after) + (2 * blocks - 1) * layer(after, after)
        before = after
    return total


@pytest.mark.parametrize(("backbone", "blocks", "known"), [(ResNet20, 3, 269_072), (ResNet32, 5, 463_504)])
def test_a_residual_network_has_the_papers_parameters(backbone, blocks, known):
    body = backbone(ResNetOptions()).build(channels=3)
    assert parameter_count(body) == residual_parameters(blocks, 16, 3) == known
    # 6n+2 layers with the classifier
    assert sum(isinstance(module, nn.Conv2d) for module in body.modules()) + 1 == 6 * blocks + 2
    grey = backbone(ResNetOptions(width=5)).build(channels=1)
    assert parameter_count(grey) == residual_parameters(blocks, 5, 1)


@pytest.mark.parametrize("size", [32, 28, 7])
def test_the_stages_halve_the_resolution_and_double_the_width(size):
    half, quarter = math.ceil(size / 2), math.ceil(math.ceil(size / 2) / 2)
    out = ResNet20(ResNetOptions(width=4)).build(3)(torch.randn(2, 3, size, size))
    assert [tuple(m.shape) for m in out.maps] == [
        (2, 4, size, size), (2, 8, half, half), (2, 16, quarter, quarter),
    ]  # fmt: skip
    assert out.features.shape == (2, 16)


def test_maps_are_raw_maps_after_relu_and_features_the_mean_of_pooled():
    out = small_model().eval()(images())
    assert len(out.maps) == len(out.raw_maps) == 3
    for after, raw in zip(out.maps, out.raw_maps, strict=True):
        assert (raw < 0).any()  # nothing overwrote the values before the ReLU
        assert_close(after, raw.clamp(min=0), rtol=0, atol=0)
    assert out.pooled is out.maps[-1]
    assert_close(out.features, out.pooled.flatten(2).mean(2))


@pytest.mark.parametrize(("before", "after", "stride"), [(4, 4, 1), (4, 8, 2), (3, 8, 2)])
def test_a_shortcut_takes_every_second_position_and_adds_empty_channels(before, after, stride):
    block = Block(before, after, stride).double()
    nn.init.zeros_(block.body[2][1].weight)  # the convolutions now say nothing
    x = torch.randn(2, before, 6, 6, dtype=torch.float64)
    out = block(x)
    first = (after - before) // 2
    assert_close(out[:, first : first + before], x[:, :, ::stride, ::stride])
    others = [c for c in range(after) if not first <= c < first + before]
    assert out[:, others].abs().sum() == 0


# the frozen copy


@pytest.mark.parametrize("head", HEADS)
def test_a_frozen_copy_computes_the_same_in_evaluation_mode(head):
    model = train_a_little(small_model(head))
    old, x = frozen_copy(model), images()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in old.modules())
    assert not old.training
    assert not any(p.requires_grad or p.grad is not None for p in old.parameters())
    with evaluating(model):
        expected = model(x)
    actual = old(x)
    assert not actual.logits.requires_grad
    for name in ("logits", "features", "maps", "raw_maps", "pooled"):
        assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-10, atol=1e-12)
    assert old.classes == model.classes


def test_freezing_leaves_the_model_as_it_was():
    model = train_a_little(small_model())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen_copy(model)
    assert model.training
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_training_the_model_further_does_not_reach_the_frozen_copy():
    model = small_model()
    model.extras["own"] = nn.Linear(2, 2).double()
    old, x = frozen_copy(model), images()
    before, weights = old(x), [value.clone() for value in old.state_dict().values()]
    train_a_little(model)
    model.grow(2)
    with torch.no_grad():
        model.extras["own"].weight.zero_()
    assert_close(old(x).logits, before.logits, rtol=0, atol=0)
    assert_close(list(old.state_dict().values()), weights, rtol=0, atol=0)
    assert old(x).logits.shape == (4, 3)


def test_a_frozen_copy_can_be_differentiated_by_its_input():
    old = frozen_copy(small_model())
    out = old(images().requires_grad_())
    (gradient,) = torch.autograd.grad(out.logits.sum(), out.maps[0])
    assert gradient.abs().max() > 0


class Standardised(nn.Conv2d):
    """A convolution whose weights have mean 0 and deviation 1, whatever is stored."""

    def forward(self, x):
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return conv2d(x, (self.weight - mean) / std, self.bias, padding=1)


class Backwards(nn.Sequential):
    """A Sequential that feeds its parts in another order."""

    def forward(self, x):
        return self[0](self[1](x))


class Body(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        pooled = self.layers(x)
        return Features(pooled.mean((2, 3)), [], [], pooled)


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), id="plain"),
        pytest.param(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, affine=False)), id="no factors"),
        pytest.param(lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 16, 3)), id="BatchNorm first"),
        pytest.param(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16)), id="ReLU between"),
        pytest.param(
            lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, track_running_stats=False)),
            id="no statistics",
        ),
        pytest.param(lambda: nn.Sequential(Standardised(3, 16, 3), nn.BatchNorm2d(16)), id="another convolution"),
        pytest.param(
            lambda: nn.Sequential(nn.Conv2d(3, 3, 3), Backwards(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(3))),
            id="another order",
        ),
    ],
)
def test_a_frozen_copy_of_any_network_computes_the_same(layers):
    body = Body(layers())
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    model = Model(body, HEADS["linear"](16))
    model.grow(3)
    model.double().eval()
    x = images()
    assert_close(frozen_copy(model)(x).logits, model(x).logits.detach(), rtol=1e-10, atol=1e-12)


def test_evaluating_restores_the_mode_even_after_an_error():
    model = small_model().train()

    def fail():
        with evaluating(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert model.training
    assert torch.is_grad_enabled()


def test_bytes_count_parameters_and_buffers():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    # 3*4*9 weights, factor, shift, mean and variance of 4 channels in float32, and one int64 counter
    assert model_bytes(layer) == 4 * (3 * 4 * 9 + 4 * 4) + 8


# heads


@pytest.mark.parametrize("head", HEADS)
def test_old_rows_keep_their_logits_when_a_head_grows(head):
    classifier = HEADS[head](6).double()
    features = torch.randn(5, 6, dtype=torch.float64)
    before = features.new_empty(5, 0)
    for more in (2, 1, 3):
        classifier.grow(more)
        after = classifier.double()(features)
        assert after.shape == (5, before.shape[1] + more)
        assert_close(after[:, : before.shape[1]], before)
        assert all(p.requires_grad and p.is_leaf for p in classifier.parameters())
        assert all(row.abs().max() > 0 for p in classifier.parameters() if p.ndim > 1 for row in p)
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.mul_(1.5)
        before = classifier(features).detach()


def test_heads_are_their_formulas():
    features = torch.randn(4, 6, dtype=torch.float64)
    linear, cosine = (HEADS[name](6).double() for name in ("linear", "cosine"))
    for head in (linear, cosine):
        head.grow(2)
        head.grow(1)
    for f, scores, cosines in zip(features, linear(features), cosine(features), strict=True):
        for c, (row, direction) in enumerate(zip(linear.weight, cosine.directions, strict=True)):
            assert_close(scores[c], sum(w * x for w, x in zip(row, f, strict=True)) + linear.bias[c])
            lengths = direction.square().sum().sqrt() * f.square().sum().sqrt()
            assert_close(cosines[c], 2.0 * (direction @ f) / lengths)


def test_a_model_that_grows_by_nothing_stays_as_it_is():
    model = small_model()
    weight = model.classifier.weight
    model.grow(0)
    assert model.classifier.weight is weight
    assert model.classes == 3


# channel weights


def outputs(features, head):
    return Outputs(head(features), features, [], [], None, head)


@pytest.mark.parametrize("head", HEADS)
def test_channel_weights_are_the_gradient_of_each_images_logit(head):
    model = small_model(head)
    out, classes = model.eval()(images()), torch.tensor([2, 0, 1, 2])
    weights = out.channel_weights(classes)
    height, width = out.pooled.shape[2:]
    for i, c in enumerate(classes.tolist()):
        of_features, of_map = torch.autograd.grad(out.logits[i, c], [out.features, out.pooled], retain_graph=True)
        assert_close(weights[i], of_features[i])
        # Grad-CAM: the mean of the gradient over the map, up to the factor that the mean over positions has
        assert_close(weights[i], height * width * of_map[i].mean((1, 2)))


@pytest.mark.parametrize("head", HEADS)
def test_channel_weights_need_no_graph(head):
    model, x, classes = small_model(head).eval(), images(), torch.tensor([2, 0, 1, 2])
    expected = model(x).channel_weights(classes).detach()
    with torch.no_grad():
        actual = model(x).channel_weights(classes)
    assert not actual.requires_grad
    assert_close(actual, expected)
    assert_close(model(x).detached().channel_weights(classes), expected)
    old = frozen_copy(model)(x).channel_weights(classes)
    assert not old.requires_grad
    assert_close(old, expected)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_channel_weights_beside_a_frozen_backbone_have_a_gradient_by_the_head(head):
    model, x, classes = small_model(head).eval(), images(), torch.tensor([2, 0, 1, 2])
    learning = torch.autograd.grad(model(x).channel_weights(classes).square().sum(), _rows(model))
    model.backbone.requires_grad_(False)
    frozen = torch.autograd.grad(model(x).channel_weights(classes).square().sum(), _rows(model))
    assert_close(frozen, learning)
    assert all(gradient.abs().max() > 0 for gradient in frozen)


def _rows(model):
    return [p for p in model.classifier.parameters() if p.ndim > 1]


@pytest.mark.parametrize("head", HEADS)
def test_channel_weights_are_differentiable(head):
    classifier = HEADS[head](5).double()
    classifier.grow(3)
    features, classes = torch.randn(4, 5, dtype=torch.float64, requires_grad=True), torch.tensor([2, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda f: outputs(f, classifier.double()).channel_weights(classes), features)
    # by the head's own parameters, against a difference quotient
    direction = torch.randn(4, 5, dtype=torch.float64)

    def score():
        return (outputs(features, classifier).channel_weights(classes) * direction).sum()

    weights = next(p for p in classifier.parameters() if p.ndim > 1)
    (gradient,) = torch.autograd.grad(score(), weights)
    values = weights.detach().view(-1)
    for i in (0, len(values) - 1):
        ends = []
        for shift in (1e-6, -2e-6):
            values[i] += shift
            ends.append(score().item())
        values[i] += 1e-6
        assert gradient.view(-1)[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)


# objectives

LOGITS = [[2.0, -1.0, 0.5], [-30.0, 30.0, 0.0], [0.1, 0.2, 0.3], [-3.0, 40.0, 2.0]]
LABELS = [0, 1, 2, 0]


def test_bce_is_the_sum_over_classes_and_the_mean_over_the_batch():
    total = 0.0
    for row, label in zip(LOGITS, LABELS, strict=True):
        for c, logit in enumerate(row):
            # -log of the sigmoid, or of its complement: log(1 + e^-x), log(1 + e^x)
            total += math.log1p(math.exp(-logit if c == label else logit))
    actual = BinaryCrossEntropy(ObjectiveOptions()).loss(torch.tensor(LOGITS).double(), torch.tensor(LABELS))
    assert_close(actual, torch.tensor(total / 4, dtype=torch.float64))


def test_cross_entropy_is_the_mean_over_the_batch():
    total = 0.0
    for row, label in zip(LOGITS, LABELS, strict=True):
        total -= math.log(math.exp(row[label]) / sum(math.exp(logit) for logit in row))
    actual = CrossEntropy(ObjectiveOptions()).loss(torch.tensor(LOGITS).double(), torch.tensor(LABELS))
    assert_close(actual, torch.tensor(total / 4, dtype=torch.float64))


@pytest.mark.parametrize("objective", [BinaryCrossEntropy, CrossEntropy])
def test_objectives_stay_finite_for_huge_logits(objective):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    for labels in ([0, 1], [1, 0]):
        loss = objective(ObjectiveOptions()).loss(logits, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()
