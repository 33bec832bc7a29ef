"""A model that was trained anywhere becomes a run: its weights are read, its classes named, images taken in."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers.command import lwmfw
from helpers.pictures import noise, put, save
from torchvision.models import resnet18

import lwmfw as framework
from lwmfw.using.weights import find_head

NAMES = ["ant", "bee", "cat"]
SMALL = ("--model", "resnet18", "--set", "data.size=32", "--set", "data.decode=once")


def pictures(folder, names, count=6):
    for name in names:
        for n in range(count):
            save(noise(36, 40, 100 * ord(name[0]) + n), folder / name / f"{n}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A network with a head of three classes, in many wrappings; the names of the classes; pictures."""
    place = tmp_path_factory.mktemp("shop")
    torch.manual_seed(0)
    network = resnet18(num_classes=3).eval()
    state = network.state_dict()
    torch.save(state, place / "plain.pth")
    torch.save({"epoch": 9, "state_dict": {f"module.{k}": v for k, v in state.items()}}, place / "wrapped.pth")
    torch.save({"model": {f"_orig_mod.{k}": v for k, v in state.items()}}, place / "compiled.pt")
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, place / "half.pth")
    torch.save(network, place / "whole.pth")
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, place / "body.pth")
    safetensors.torch.save_file(state, place / "plain.safetensors")
    (place / "names.txt").write_text("\n".join(NAMES) + "\n")
    pictures(place / "pictures", NAMES)
    return place, network


def adopt(*arguments):
    done = lwmfw("adopt", *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "file",
    [
        "plain.pth",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("wrapped.pth", "compiled.pt")),
        "plain.safetensors",
    ],
)
def test_the_adopted_model_answers_as_the_network_did(place, file, tmp_path):
    place, network = place
    adopt("--weights", place / file, "--classes", place / "names.txt", *SMALL, "--out", tmp_path / "run")
    run = framework.open_run(tmp_path / "run")
    assert run.class_names == NAMES
    assert list(run.results.last_accuracy) == ["cnn"]
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run.model(images).logits, network(images), rtol=1e-5, atol=1e-5)
    assert run.results.first_step["weights"] == file
    assert not json.loads((tmp_path / "run" / "results.json").read_text())["last_accuracy"]["cnn"]


def test_what_was_taken_off_is_said(place, tmp_path):
    place, _ = place
    arguments = ("--classes", place / "names.txt", *SMALL, "--out", tmp_path / "run")
    said = adopt("--weights", place / "wrapped.pth", *arguments).stderr
    assert "took 'state_dict' out of it" in said
    assert "dropped 'module.'" in said
    (tmp_path / "other").mkdir()
    done = adopt("--weights", place / "half.pth", *arguments[:-1], tmp_path / "other" / "run")
    assert "made float32 of torch.float16" in done.stderr


@pytest.mark.slow
def test_images_fill_the_sums_and_the_run_is_extended(place, tmp_path):
    place, _ = place
    data = ("--data", place / "pictures")
    arguments = ("--classes", place / "names.txt", *data, *SMALL, "--out", tmp_path / "run", "--json")
    said = json.loads(adopt("--weights", place / "plain.pth", *arguments).stdout)
    assert list(said["accuracy"]) == ["ridge", "ncm", "lda", "cnn"]
    assert said["readouts"]["ridge"]["exact"]
    assert said["by_class"][0]["images"] == 1
    pictures(tmp_path / "new", ["dog"])
    done = lwmfw("extend", tmp_path / "run", "--data", tmp_path / "new", "--out", tmp_path / "more", report=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "more" / "report.html").exists()
    assert framework.open_run(tmp_path / "more").class_names == [*NAMES, "dog"]
    assert lwmfw("verify", tmp_path / "more").returncode == 0
    done = lwmfw(
        *("extend", tmp_path / "run", "--data", tmp_path / "new", "--out", tmp_path / "trained"),
        *("--train", "--set", "training.epochs=1", "--set", "objective.over=seen"),
        *("--set", "penalties.L_AD.layer=3"),
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "trained" / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["terms"]) == {"cross_entropy", "L_D", "L_AD"}


@pytest.mark.slow
def test_a_head_of_another_size_is_left_out_and_the_images_decide(place, tmp_path):
    place, _ = place
    pictures(tmp_path / "months", ["gnu", "hen"])
    arguments = ("--weights", place / "plain.pth", "--data", tmp_path / "months", *SMALL, "--out", tmp_path / "run")
    done = adopt(*arguments)
    assert "left out its head, which is of 3 classes; there are 2 names" in done.stderr
    run = framework.open_run(tmp_path / "run")
    assert run.class_names == ["gnu", "hen"]
    assert list(run.results.last_accuracy) == ["ridge", "ncm", "lda"]


@pytest.mark.slow
def test_a_class_without_images_is_known_to_the_classifier_alone(place, tmp_path):
    place, _ = place
    pictures(tmp_path / "some", ["ant", "cat"])
    put(tmp_path / "some" / "ant" / "clip.mp4", b"no image")
    arguments = ("--classes", place / "names.txt", "--data", tmp_path / "some", *SMALL, "--out", tmp_path / "run")
    adopt("--weights", place / "plain.pth", *arguments)
    counts = framework.open_run(tmp_path / "run").checkpoint().components["ridge"]["counts"]
    assert counts.tolist() == [5, 0, 5]
    assert json.loads((tmp_path / "run" / "env.json").read_text())["left_out"] == {".mp4": 1}


def test_a_network_of_our_own_is_adopted_without_an_option_for_weights(place, tmp_path):
    from lwmfw.testing import tiny_run

    (tmp_path / "first").mkdir()
    trained = framework.open_run(tiny_run({}, tmp_path / "first").path).model
    torch.save({**trained.backbone.state_dict(), "fc.weight": trained.classifier.weight}, tmp_path / "own.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    options = ("--backbone", "resnet20", "--set", "backbone.width=4", "--set", "data.size=8")
    files = ("--weights", tmp_path / "own.pth", "--classes", tmp_path / "names.txt", "--out", tmp_path / "run")
    adopt(*files, *options)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        found = framework.open_run(tmp_path / "run").model(images).features
        torch.testing.assert_close(found, trained(images).features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "whole.pth", "--classes", "names.txt"), "holds more than tensors, which is not read; save "),
        (("--weights", "nowhere.pth", "--classes", "names.txt"), "nowhere.pth: cannot be read"),
        (("--weights", "names.txt", "--classes", "names.txt"), "names.txt: "),
        (("--weights", "plain.pth"), "--classes: is missing, and there is no --data to name them; give one of them"),
        (("--weights", "body.pth", "--classes", "names.txt"), "nothing would know the classes"),
        (("--weights", "plain.pth", "--classes", "nowhere"), "nowhere: cannot be read"),
        (("--weights", "plain.pth", "--classes", "sparse"), "sparse: cannot be read (larger than 16 MiB"),
        (("--weights", "plain.pth", "--data", "nowhere"), "cannot be read (No such file or directory)"),
        (
            ("--weights", "plain.pth", "--classes", "names.txt", "--model", "resnet34"),
            "--weights: plain.pth: does not fit",
        ),
        (("--weights", "plain.pth", "--classes", "names.txt", "--backbone", "torchvisoin"), "mean 'torchvision'?"),
        (("--weights", "plain.pth", "--classes", "names.txt", "--backbone", "resnet20"), "does not fit the backbone: "),
    ],
)
def test_what_is_wrong_is_told_in_a_line(place, monkeypatch, arguments, message):
    place, _ = place
    monkeypatch.chdir(place)
    Path("sparse").touch()
    os.truncate("sparse", 1 << 40)  # of which the disk holds nothing
    done = lwmfw("adopt", *arguments, *(() if "--model" in arguments or "--backbone" in arguments else SMALL))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr.splitlines()[-1]


def test_the_head_is_the_linear_layer_on_features_that_the_body_has_no_place_for():
    body = {"body.weight": torch.zeros(9, 8, 3, 3), "inner.gate": torch.full((5, 8), 2.0)}
    tensors = {
        "fc.bias": torch.arange(4.0),
        "fc.weight": torch.ones(4, 8),
        "gate.weight": torch.full((5, 8), 2.0),
        "other.weight": torch.zeros(9, 8, 3, 3),
    }
    head = find_head(tensors, body, 8)
    assert (head.name, head.bias.tolist()) == ("fc", [0, 1, 2, 3])
    assert find_head(tensors, body, 9) is None
    del tensors["fc.weight"]
    assert find_head(tensors, body, 8) is None
    tensors["fc.weight"] = torch.ones(4, 8, 1, 1)
    assert find_head(tensors, body, 8).weight.shape == (4, 8)


@pytest.mark.slow
def test_an_adopted_run_is_there_when_it_is_finished_or_not_at_all(place, tmp_path):
    place, _ = place
    arguments = ("--weights", place / "plain.pth", "--classes", place / "names.txt", *SMALL)
    pictures(tmp_path / "other", ["yak"])
    done = lwmfw("adopt", *arguments, "--data", tmp_path / "other", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "class 'yak' is none of --classes" in done.stderr
    assert not (tmp_path / "run").exists()
    adopt(*arguments, "--out", tmp_path / "run")
    done = lwmfw("run", tmp_path / "run" / "resolved.toml", "--out", tmp_path / "again")
    assert done.returncode == 2
    assert "`lwmfw adopt` has made this run" in done.stderr
