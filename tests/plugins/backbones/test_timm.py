"""timm's models as backbones, where timm is installed, and what is said where it is not."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from lwmfw import UserError
from lwmfw.testing import check_backbone, tiny_run
from lwmfw_plugins.backbones.timm import POOLED, Timm, TimmOptions


def test_without_timm_a_recipe_that_names_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not there
    with pytest.raises(UserError, match=r'timm is not installed; pip install "lwmfw\[timm\]"$'):
        tiny_run({"backbone": {"use": "timm"}}, tmp_path)


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


def backbone(model, weights=""):
    return Timm(TimmOptions(model=model, weights=str(weights)))


@pytest.mark.parametrize(
    "name", ["test_resnet", "resnet10t", "efficientnet_lite0", "regnetx_002", "mobilenetv2_050", "test_convnext"]
)
def test_a_model_offers_what_it_says(timm, name):
    check_backbone(backbone(name), channels=1, size=64)


@pytest.mark.slow
@pytest.mark.parametrize("beginning", POOLED)
def test_the_smallest_model_of_every_listed_family_pools_a_map(timm, beginning):
    def size(name):
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name).parameters())

    check_backbone(backbone(min(timm.list_models(f"{beginning}*"), key=size)), channels=3, size=64)


def test_features_are_what_the_classifier_receives(timm):
    original, images = timm.create_model("test_resnet", num_classes=5).eval(), torch.randn(2, 3, 64, 64)
    network = backbone("test_resnet").build(3).eval()
    network.model.load_state_dict({k: v for k, v in original.state_dict().items() if not k.startswith("fc.")})
    with torch.no_grad():
        assert_close(original.fc(network(images).features), original(images))


def test_a_run_trains_one_and_distils_its_attention(timm, tmp_path):
    data = {"use": "synthetic", "size": 64}  # of which the last map has more than one position
    done = tiny_run(
        {"data": data, "backbone": {"use": "timm", "model": "test_resnet"}, "penalties": [{"use": "L_AD"}]}, tmp_path
    )
    assert "L_AD" in done.terms[2]


def test_weights_are_read_and_the_classifier_among_them_left_out(timm, tmp_path):
    original, file = timm.create_model("test_resnet", num_classes=5), tmp_path / "w.safetensors"
    save_file(original.state_dict(), file)
    network = backbone("test_resnet", file).build(3)
    assert_close(network.model.conv1.state_dict(), original.conv1.state_dict())
    with pytest.raises(UserError, match=r"w\.safetensors: does not fit the model: "):
        backbone("test_resnet", file).build(1)
    with pytest.raises(UserError, match=r"none: cannot be read"):
        backbone("test_resnet", tmp_path / "none").build(3)


def test_an_unknown_model_is_refused_with_a_close_match(timm):
    with pytest.raises(UserError, match="timm has no model 'resnt18'; did you mean 'resnet18'"):
        backbone("resnt18").build(3)
