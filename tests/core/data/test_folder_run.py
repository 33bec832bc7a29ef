"""A run on a person's own images: sizes and modes of all kinds, damaged ones, and the same bits however it is run."""

import json

import pytest
import torch
from helpers import command as command_line
from helpers.pictures import noise, put, save
from helpers.runs import interrupted
from PIL import Image

import lwmfw
from lwmfw.testing import tiny_recipe, tiny_run

CLASSES = ["ant", "bee", "cat", "dog"]


def turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(image, path, exif=exif)


def sixteen_bits(image):
    grey = torch.tensor(list(image.convert("L").tobytes())).view(image.height, image.width)
    return Image.fromarray((257 * grey).numpy().astype("uint16"))


SAVERS = [
    lambda image, path: save(image, path.with_suffix(".jpg")),
    lambda image, path: save(image, path.with_suffix(".PNG")),
    lambda image, path: save(image.convert("L"), path.with_suffix(".jpeg")),
    lambda image, path: save(image.convert("RGBA"), path.with_suffix(".png")),
    lambda image, path: save(image.convert("P"), path.with_suffix(".gif")),
    lambda image, path: save(image.convert("CMYK"), path.with_suffix(".jpg")),
    lambda image, path: save(sixteen_bits(image), path.with_suffix(".png")),
    lambda image, path: turned(image, path.with_suffix(".jpg")),
]


@pytest.fixture
def photographs(tmp_path):
    """20 images of each of four classes, no two of one size and every kind among them; one cannot be read."""
    root = tmp_path / "photographs"
    for seed, name in enumerate(CLASSES):
        for n in range(20):
            SAVERS[n % len(SAVERS)](noise(40 + 3 * n, 90 - 2 * n, seed), root / name / f"{n:02}")
    put(root / "bee" / "08.jpg", (root / "bee" / "08.jpg").read_bytes()[:300])
    put(root / "bee" / "Thumbs.db", b"no image")
    return root


def recipe_tables(root, **data):
    return {
        "data": {"use": "folder", "root": str(root), "size": 32, "unreadable": "skip", **data},
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.05, "precision": "fp32"},
        "penalties": [{"use": "L_D"}],
    }


def weights(done):
    return done.run.model.state_dict()


def equal(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def command(recipe):
    return command_line.lwmfw("run", recipe, "--out", "run", "--device", "cpu", "--set", "training.epochs=1")


def test_lwmfw_run_names_an_unreadable_image_and_exits_2(photographs, tmp_path):
    recipe = tiny_recipe(recipe_tables(photographs, unreadable="refuse"), tmp_path)
    done = command(recipe)
    assert done.returncode == 2
    assert f"folder: 1 of 80 images cannot be read: {photographs / 'bee' / '08.jpg'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_lwmfw_run_skips_and_lists_it_if_the_recipe_asks(photographs, tmp_path):
    recipe = tiny_recipe(recipe_tables(photographs) | {"observers": [{"use": "console"}]}, tmp_path)
    done = command(recipe)
    assert done.returncode == 0, done.stderr
    bad = str(photographs / "bee" / "08.jpg")
    assert f"skipped because they cannot be read: {bad}" in done.stderr
    assert json.loads((tmp_path / "run" / "env.json").read_text())["skipped_images"] == [bad]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sorted(results["class_names"]) == CLASSES
    assert sum(map(sum, results["steps"][1]["confusion"]["cnn"])) == 16


@pytest.mark.parametrize("decode", [pytest.param("once", marks=pytest.mark.slow), "each epoch"])
def test_a_run_has_the_same_bits_with_workers_and_without(photographs, tmp_path, monkeypatch, decode):
    done = []
    for workers in (0, 2):
        monkeypatch.setattr("lwmfw.data.workers.worker_count", lambda count=workers: count)
        folder = tmp_path / str(workers)
        folder.mkdir()
        done.append(tiny_run(recipe_tables(photographs, decode=decode), folder))
    assert equal(*map(weights, done))
    assert done[0].results.steps[1].confusion == done[1].results.steps[1].confusion


def test_an_interrupted_run_goes_on_to_the_same_bits(photographs, tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = tiny_run(recipe_tables(photographs), tmp_path / "whole")
    assert equal(weights(interrupted(tmp_path / "cut", recipe_tables(photographs), after=1)), weights(whole))


def test_a_model_for_large_images_is_opened_again(photographs, tmp_path):
    done = tiny_run(recipe_tables(photographs, size=48), tmp_path)
    opened = lwmfw.open_run(done.path)
    assert equal(weights(done), opened.model.state_dict())


@pytest.mark.slow
def test_images_that_can_be_told_apart_are_learned(photographs, tmp_path):
    tables = recipe_tables(photographs, decode="once") | {"scenario": {"first": 4, "increment": 0}}
    tables["training"] = tables["training"] | {"epochs": 15}
    tables["backbone"] = {"use": "resnet20", "width": 8}
    assert tiny_run(tables, tmp_path).results.steps[0].accuracy["cnn"] > 0.6
