"""torchvision's models as backbones: what they compute, what they offer, and which weights they refuse."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close
from torchvision import models

from lwmfw import UserError
from lwmfw.model.growing import Model, frozen_copy
from lwmfw.model.outputs import Form
from lwmfw.testing import check_backbone, tiny_run
from lwmfw_plugins.backbones._torchvision import build_network
from lwmfw_plugins.backbones.torchvision import AUXILIARY, POOLED, Torchvision, TorchvisionOptions
from lwmfw_plugins.classifiers._heads import LinearHead


def backbone(model, weights=""):
    return Torchvision(TorchvisionOptions(model=model, weights=str(weights)))


def seeded(name, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.get_model(name, weights=None, **options).eval()


FAMILIES = [
    "resnet18", "regnet_x_400mf", "densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v2", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "mobilenet_v3_small", "convnext_tiny",
]  # fmt: skip
HEAVY = ["resnext50_32x4d", "wide_resnet50_2", "alexnet", "vgg11", "swin_v2_t"]


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY)])
def test_a_model_of_every_family_offers_what_it_says(name):
    check_backbone(backbone(name), channels=3, size=64)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "features"), [("vit_b_32", 768), ("maxvit_t", 512)])
def test_models_for_images_of_one_size_offer_features(name, features):
    network = backbone(name).build(3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).features.shape == (1, features)


def test_every_model_that_torchvision_lists_is_of_a_known_family():
    whole = ("alexnet", "convnext", "maxvit", "mobilenet_v3", "vgg", "vit")
    assert all(name.startswith((*POOLED, *whole)) or name in AUXILIARY for name in models.list_models(module=models))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_of_the_original_classifies_the_features(name):
    original, images = seeded(name), torch.randn(2, 3, 64, 64)
    last = [m for m in original.modules() if isinstance(m, nn.Conv2d if name == "squeezenet1_1" else nn.Linear)][-1]
    received = []
    last.register_forward_pre_hook(lambda module, given: received.append(given[0]))
    with torch.no_grad():
        original(images)
        features = build_network(seeded(name), "").eval()(images).features
    (expected,) = received
    assert_close(features, expected.mean((2, 3)) if expected.ndim == 4 else expected, rtol=1e-4, atol=1e-5)


def test_maps_of_a_residual_network_are_the_ends_of_its_layers():
    original, images = seeded("resnet18"), torch.randn(2, 3, 64, 64)
    ends = []
    for layer in (original.layer1, original.layer2, original.layer3, original.layer4):
        layer.register_forward_hook(lambda module, given, out: ends.append(out.clone()))
    with torch.no_grad():
        original(images)
        assert_close(build_network(seeded("resnet18"), "").eval()(images).maps, ends)


def test_features_are_the_mean_of_pooled_in_training_too():
    out = backbone("mobilenet_v2").build(3).train()(torch.randn(4, 3, 32, 32))
    assert_close(out.pooled.mean((2, 3)), out.features)


def test_one_channel_is_repeated_to_three():
    network, grey = build_network(seeded("resnet18"), "").eval(), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert_close(network(grey).features, network(grey.repeat(1, 3, 1, 1)).features)


def test_maps_can_be_differentiated_twice_and_frozen():
    model = Model(build_network(seeded("resnet18"), ""), LinearHead(512), form=Form(512, 4, 0, True))
    model.grow(2)
    model.double().train()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    model(images).map_weights(2, torch.tensor([0, 1, 0, 1])).square().sum().backward()
    assert model.backbone.stages[0][0].weight.grad.abs().max() > 0
    old = frozen_copy(model)
    with torch.no_grad():
        assert_close(old(images).logits, model.eval()(images).logits, rtol=1e-9, atol=1e-12)


def test_a_run_trains_one_and_distils_its_attention(tmp_path):
    backbone = {"use": "torchvision", "model": "shufflenet_v2_x0_5"}
    done = tiny_run({"data": {"size": 64}, "backbone": backbone, "penalties": [{"use": "L_AD"}]}, tmp_path)
    assert "L_AD" in done.terms[2]


# weights


def file_of(model, path):
    save_file(model.state_dict(), path)
    return path


def test_weights_are_read_and_the_classifier_among_them_left_out(tmp_path):
    original, images = seeded("resnet18", num_classes=7), torch.randn(1, 3, 64, 64)
    file = file_of(original, tmp_path / "w.safetensors")
    original.fc = nn.Identity()
    with torch.no_grad():
        assert_close(backbone("resnet18", file).build(3).eval()(images).features, original(images))


def refusal(model, weights="", channels=3):
    with pytest.raises(UserError) as refused:
        backbone(model, weights).build(channels)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_no_file_of_weights_is_refused_in_its_name(tmp_path):
    assert f"backbone.weights: {tmp_path}/none: cannot be read" in refusal("resnet18", tmp_path / "none")
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x02}q\x00." * 9)
    message = refusal("resnet18", tmp_path / "pickle.pth")
    assert message.startswith(f"backbone.weights: {tmp_path}/pickle.pth: is no .safetensors file; write it with safe")
    save_file({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, tmp_path / "nan.safetensors")
    assert "nan.safetensors: conv1.weight has 9408 of 9408 values that" in refusal(
        "resnet18", tmp_path / "nan.safetensors"
    )


def test_a_counter_in_the_place_of_a_table_is_refused(tmp_path):
    from lwmfw_plugins.backbones._weights import load_weights

    network = nn.ParameterDict({"table": torch.zeros(2)})
    save_file({"table": torch.zeros(2, dtype=torch.int64)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"table is torch.int64 rather than torch.float32; "):
        load_weights(network, str(tmp_path / "w.safetensors"), [])


def test_weights_of_another_model_are_refused_by_their_names(tmp_path):
    other = file_of(seeded("resnet34"), tmp_path / "w.safetensors")
    message = refusal("resnet18", other)
    assert f"{other}: does not fit the model: holds layer1.2.bn1.bias, which is none of its names" in message
    assert re.search(r", and \d+ more; ", message)
    less = seeded("resnet18")
    del less.layer1[0].conv2
    assert "lacks layer1.0.conv2.weight; " in refusal("resnet18", file_of(less, tmp_path / "w.safetensors"))
    wide = seeded("resnet18")
    wide.conv1 = nn.Conv2d(1, 64, 7)
    del wide.conv1.bias
    message = refusal("resnet18", file_of(wide, tmp_path / "w.safetensors"))
    assert "conv1.weight is [64, 1, 7, 7] rather than [64, 3, 7, 7]" in message


# names


def test_an_unknown_model_is_refused_with_a_close_match():
    assert refusal("resnet81").endswith("no classification model 'resnet81'; did you mean 'resnet18'?")
    assert "`lwmfw plugins torchvision`" in refusal("zzz")
    assert "fasterrcnn_resnet50_fpn" in refusal("fasterrcnn_resnet50_fpn")  # detects, does not classify


@pytest.mark.parametrize("name", AUXILIARY)
def test_models_with_auxiliary_classifiers_are_refused_with_the_reason(name):
    with pytest.raises(UserError, match=f"{name} is trained by auxiliary classifiers"):
        backbone(name)


def test_images_of_other_channels_are_refused():
    assert refusal("resnet18", channels=4).startswith("backbone.use: torchvision's models see 1 or 3 channels")


def test_a_penalty_that_needs_a_map_is_refused_for_a_model_without(tmp_path):
    with pytest.raises(UserError, match="needs 'pooled', but the backbone torchvision offers features"):
        tiny_run({"backbone": {"use": "torchvision", "model": "vgg11"}, "penalties": [{"use": "L_AD"}]}, tmp_path)
