"""The systems that grow, share a memory out, compress it or correct a classifier, each as its shipped recipe has it."""

import json

import pytest
import torch
from helpers.command import lwmfw as command
from helpers.months import CLASSES, pictures
from helpers.runs import THREE_STEPS, interrupted

import lwmfw
from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_run

RECIPES = shipped.recipes()
SYSTEMS = ("bic", "den", "der", "der-pruned", "mecil", "muc", "pnn", "rmm", "som", "wa", "wa-free")
GROWING = ("den", "der", "der-pruned", "pnn")


def tables(name, **changed):
    """The method of a shipped recipe on a few small images."""
    small = {"training.epochs": 2, "training.first": {}, "training.batch_size": 8, "backbone.width": 4}
    whole = load_recipe(RECIPES[f"fashion-mnist/{name}"], small | changed).tables()
    if "memory" in whole:
        whole["memory"]["budget"] = "20 kB" if name == "mecil" else "12 exemplars"
    for phase in whole.get("phases", []):
        phase["epochs"] = 2
    for penalty in whole["penalties"]:
        if "side_epochs" in penalty:
            penalty["side_epochs"] = 2
    if name == "som":  # nothing is trained after its first step
        whole["training"] |= {"epochs": 0, "first": {"epochs": 2}}
    kept = ("backbone", "classifier", "objective", "penalties", "phases", "memory", "training", "readouts")
    data = THREE_STEPS | {"data": THREE_STEPS["data"] | {"size": 12, "channels": 1}}
    return data | {key: whole[key] for key in kept if key in whole}


def bits(run):
    """Everything of a run that has to be the same again."""
    steps = run.results.to_json()["steps"]
    for step in steps:
        step["train_seconds"], step["part_seconds"] = 0.0, {}
    kept = checkpoint.load(run.path / "checkpoints")
    states = {f"{name}/{key}": value for name, state in kept.components.items() for key, value in state.items()}
    tensors = {name: value for name, value in {**states, **kept.model}.items() if isinstance(value, torch.Tensor)}
    plain = {name: value for name, value in states.items() if name not in tensors}
    return json.dumps([steps, plain], sort_keys=True), tensors


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", SYSTEMS)
def test_killed_after_any_step_it_resumes_to_the_same_bits(name, tmp_path):
    for place in ("whole", "1", "2"):
        (tmp_path / place).mkdir()
    told, tensors = bits(tiny_run(tables(name), tmp_path / "whole"))
    for after in (1, 2):
        again, resumed = bits(interrupted(tmp_path / str(after), tables(name), after))
        assert again == told
        assert resumed.keys() == tensors.keys()
        assert [key for key, value in tensors.items() if not torch.equal(value, resumed[key])] == []


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", GROWING)
def test_a_network_that_has_grown_is_extended_and_exported_like_any_other(name, tmp_path):
    pictures(tmp_path / "old", [*CLASSES["months"], *CLASSES["april"]])
    pictures(tmp_path / "may", CLASSES["may"])
    data = {"use": "folder", "root": str(tmp_path / "old"), "size": 12, "decode": "once"}
    (tmp_path / "base").mkdir()
    base = tiny_run(tables(name) | {"data": data, "scenario": {"first": 2, "increment": 2}}, tmp_path / "base")
    done = command("extend", base.path, "--data", tmp_path / "may", "--train", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    opened = lwmfw.open_run(tmp_path / "run")
    assert opened.results.class_names == [*base.results.class_names, "elk", "fox"]
    assert [step.seen for step in opened.results.steps] == [2, 4, 6]
    before, after = base.run.model.eval(), opened.model
    assert after.width > before.width or name == "den"
    done = command("export", tmp_path / "run", "--format", "pt2")
    assert done.returncode == 0, done.stderr
    done = command("predict", tmp_path / "run", tmp_path / "old" / "ant" / "0.png")
    assert done.returncode == 0, done.stderr
