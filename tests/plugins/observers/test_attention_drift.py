"""attention-drift: distances against a slow Grad-CAM, files, pictures, and going on after an interruption."""

import io

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from lwmfw import Observer, UserError, attention_drift, hookimpl
from lwmfw.errors import RunFailed
from lwmfw.record.reading import RecordedRun
from lwmfw.testing import tiny_run
from lwmfw_plugins._pictures import _HEAT, attention_sheet, overlay
from lwmfw_plugins.observers.attention_drift import drift_captions, look, summary

DRIFT = {"observers": [{"use": "attention-drift", "images": 3}]}
SIZE = {"data": {"use": "synthetic", "size": 16}}


def extras(results):
    return [step.extra["attention-drift"] for step in results.steps]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return tiny_run(SIZE | DRIFT, tmp_path_factory.mktemp("drift"))


def test_attention_is_grad_cam_for_the_true_class_in_evaluation_mode(done):
    run = done.run
    model, images = run.model.train(), run.data.test.of_classes(range(2))
    maps = look(run, model, images)
    assert model.training
    assert not maps.requires_grad
    model.eval()
    for pixels, label, actual in zip(images.pixels, images.labels, maps, strict=True):
        out = model(run.loader.normalise(pixels[None]))
        (gradient,) = torch.autograd.grad(out.logits[0, label], out.pooled)
        expected = (gradient.mean((2, 3))[0, :, None, None] * out.pooled[0]).sum(0).relu().detach()
        assert_close(actual, expected / expected.norm().clamp(min=1e-12), rtol=1e-3, atol=1e-4)


def test_distances_are_sums_over_positions():
    maps, first = torch.rand(3, 2, 2), torch.rand(3, 2, 2)
    l1, l2 = attention_drift(maps, first)
    for i in range(3):
        pairs = list(zip(maps[i].flatten().tolist(), first[i].flatten().tolist(), strict=True))
        assert l1[i].item() == pytest.approx(sum(abs(a - b) for a, b in pairs), rel=1e-5)
        assert l2[i].item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) ** 0.5, rel=1e-5)


def test_a_summary_has_means_over_images_and_over_those_of_each_class():
    said = summary(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0, 0, 1]))
    assert said == {"l1": 3.0, "l2": 2.0, "l1_by_class": [1.5, 6.0], "l2_by_class": [0.5, 5.0]}


def test_results_say_how_far_each_step_is_from_the_first(done):
    first, second = extras(RecordedRun(done.path).results)
    assert first == {"l1": 0.0, "l2": 0.0, "l1_by_class": [0.0, 0.0], "l2_by_class": [0.0, 0.0]}
    assert second["l1"] > second["l2"] > 0
    assert second["l1"] == pytest.approx(sum(second["l1_by_class"]) / 2)


def test_the_maps_of_every_step_are_kept(done):
    one, two = (load_file(done.path / "attention-drift" / f"step-{n}.safetensors") for n in (1, 2))
    assert one["labels"].tolist() == two["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert one["indices"].tolist() == [0, 1, 2, 8, 9, 10]  # 8 test images a class
    assert one["maps"].shape == (6, 4, 4)
    assert one["maps"].dtype == torch.float16
    l1, _ = attention_drift(two["maps"].float(), one["maps"].float())
    assert l1.mean().item() == pytest.approx(extras(done.results)[1]["l1"], abs=0.01)
    lengths = one["maps"].float().flatten(1).norm(dim=1)
    assert_close(lengths, (lengths > 0).float(), rtol=1e-2, atol=0)  # zero where the ReLU leaves nothing


def test_a_resumed_run_measures_from_the_first_step_of_all(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = tiny_run(THREE_STEPS | DRIFT, tmp_path / "whole")
    cut = interrupted(tmp_path / "cut", THREE_STEPS, after=2, observers=DRIFT["observers"])
    assert extras(cut.results) == extras(RecordedRun(cut.path).results) == extras(whole.results)
    assert (cut.path / "attention-drift.png").read_bytes() == (whole.path / "attention-drift.png").read_bytes()


def test_the_picture_has_a_row_per_image_and_a_column_per_step(done, tmp_path):
    with Image.open(done.path / "attention-drift.png") as picture:
        width, height = picture.size
    assert width > 3 * 112  # the image and two steps
    assert height > 6 * 112
    without = tiny_run({"observers": [{"use": "attention-drift", "picture": False}]}, tmp_path)
    assert not (without.path / "attention-drift.png").exists()


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 224)])
def test_a_sheet_fits_images_of_any_size(channels, side):
    pixels, maps = torch.zeros(2, channels, side, side, dtype=torch.uint8), torch.rand(2, 3, 7, 7)
    with Image.open(io.BytesIO(attention_sheet(pixels, maps, ["cat", "dog"], [["0"] * 3] * 2))) as picture:
        assert picture.size[0] > 4 * max(side, 112)


def test_heat_is_strongest_where_the_map_is_and_absent_where_it_is_zero():
    image = torch.full((3, 8, 8), 100.0)
    assert_close(overlay(image, torch.zeros(2, 2)), image)
    hot = overlay(image, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert_close(hot[:, 0, 0], image[:, 0, 0] + 0.8 * (_HEAT[-1] - image[:, 0, 0]))
    assert_close(hot[:, -1, -1], image[:, -1, -1])


def test_a_dead_map_is_said_to_be_dead_and_not_to_be_near():
    alive, dead = torch.tensor([[0.6, 0.8]]), torch.zeros(1, 2)
    assert drift_captions(torch.stack([alive, dead, alive.flip(1)])) == ["l1 0.00", "no attention", "l1 0.40"]
    assert drift_captions(torch.stack([dead, alive, dead])) == ["no attention", "no first map", "no attention"]


def test_a_backbone_without_a_pooled_map_is_refused(tmp_path):
    with pytest.raises(UserError, match="attention-drift needs 'pooled', but the backbone torchvision offers features"):
        tiny_run({"backbone": {"use": "torchvision", "model": "vit_b_16"}} | DRIFT, tmp_path)


def test_what_an_observer_adds_has_to_be_plain(tmp_path):
    class Adding:
        """Adds a tensor."""

        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, result):
            result.extra["adding"] = {"value": torch.zeros(1)}

    with pytest.raises(RunFailed, match=r"adding\.after_step added 'adding', which cannot be kept .*; add numbers"):
        tiny_run({"observers": [{"use": "adding"}]}, tmp_path, components=[Observer("adding", Adding)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
def test_images_of_any_number_of_channels_are_drawn(channels, tmp_path):
    data = {
        "use": "synthetic",
        "classes": 4,
        "train_per_class": 8,
        "test_per_class": 4,
        "size": 8,
        "channels": channels,
    }
    run = tiny_run({"data": data, "observers": [{"use": "attention-drift"}]}, tmp_path)
    assert (run.path / "attention-drift.png").read_bytes().startswith(b"\x89PNG")
