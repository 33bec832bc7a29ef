"""Initial weights are not read where a checkpoint has every weight; where they are read, they are the same."""

import hashlib

import pytest
import safetensors.torch
import torch
from helpers.command import lwmfw
from helpers.runs import halted

import lwmfw as framework
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.places import places, weight_files
from lwmfw.testing import tiny_recipe
from lwmfw.using.extend import Extension, extended

BROUGHT = """
from safetensors.torch import load_file
from torch import nn
from lwmfw import Backbone, Features, Field, File, Options, hookimpl

class Brought(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 4)

    def forward(self, images):
        return Features(self.line(images.mean((2, 3))), [], [], None)

class BroughtOptions(Options):
    weights: File = Field("", description="file")

class Builder:
    offers = frozenset({"features"})

    def __init__(self, options):
        self.options = options

    def build(self, channels):
        network = Brought()
        if self.options.weights:
            network.load_state_dict(load_file(self.options.weights))
        return network

@hookimpl
def register_components():
    yield Backbone("brought", Builder, BroughtOptions)
"""
GROWING = BROUGHT.replace(
    "    def build", "    @hookimpl\n    def grow_model(self, step, model): pass\n\n    def build"
)


def write_weights(file, seed):
    torch.manual_seed(seed)
    safetensors.torch.save_file(torch.nn.Linear(3, 4).state_dict(prefix="line."), file)


def begin(folder, plugin=BROUGHT):
    """A run on such a backbone that has finished its first step, and its recipe."""
    (folder / "brought.py").write_text(plugin)
    write_weights(folder / "w.safetensors", 0)
    recipe = {"plugins": ["brought.py"], "backbone": {"use": "brought", "weights": str(folder / "w.safetensors")}}
    recipe["readouts"] = [{"use": "ncm"}, {"use": "cnn"}]
    return halted(folder, recipe), tiny_recipe(recipe, folder)


def test_weights_that_are_gone_are_not_missed(tmp_path):
    path, recipe = begin(tmp_path)
    digest = framework.open_run(path).results.files["backbone.weights"]
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    whole = framework.run(recipe, out=tmp_path / "whole", device="cpu")
    (tmp_path / "w.safetensors").unlink()
    assert framework.open_run(path).model.classes == 2
    shared = framework.run(recipe, out=tmp_path / "shared", device="cpu", from_run=path)
    gone_on = framework.resume(path, device="cpu")
    assert [r.steps[-1].confusion for r in (shared, gone_on)] == [whole.steps[-1].confusion] * 2
    assert gone_on.files == {"backbone.weights": digest}
    assert gone_on.settings == whole.settings == framework.open_run(path).settings_digest
    assert framework.open_run(path).as_left().model.classes == 4  # as predict, export, merge and retract have it
    assert extended(framework.open_run(path), Extension(tmp_path)).tables()["backbone"]["weights"] == ""
    done = lwmfw("run", recipe, "--dry-run")
    assert done.returncode == 1
    assert "w.safetensors" in done.stderr


def test_other_weights_under_the_same_name_are_seen_and_not_read(tmp_path):
    path, recipe = begin(tmp_path)
    model = framework.open_run(path).model.state_dict()
    write_weights(tmp_path / "w.safetensors", 1)
    again = framework.open_run(path).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.items())
    with pytest.raises(CheckpointRefused, match=r"backbone\.weights is another file; put back what was there"):
        framework.resume(path, device="cpu")
    with pytest.raises(UserError, match=r"on other data: backbone\.weights is another file; leave --from out"):
        framework.run(recipe, out=tmp_path / "shared", device="cpu", from_run=path)


def test_a_network_that_grows_reads_them_again(tmp_path):
    path, _ = begin(tmp_path, GROWING)
    (tmp_path / "w.safetensors").unlink()
    assert framework.open_run(path).model.classes == 2
    assert lwmfw("resume", path).returncode != 0


def test_an_untrained_model_begins_with_them(tmp_path):
    path, _ = begin(tmp_path)
    run = framework.open_run(path).prepared()
    assert run.fresh_model(torch.Generator()).classes == 2
    (tmp_path / "w.safetensors").unlink()
    run = framework.open_run(path).prepared()
    with pytest.raises(UserError, match=r"backbone\.weights: .*w\.safetensors is gone, and an untrained model begins"):
        run.fresh_model(torch.Generator())


def test_what_names_a_place_is_told_by_its_type(tmp_path):
    muc = {"use": "muc", "other": {"use": "cifar100", "root": str(tmp_path)}}
    settings = {"data": {"use": "folder", "root": "x"}, "backbone": {"use": "torchvision", "weights": "w"}}
    resolved = load_recipe(tiny_recipe(settings | {"penalties": [muc]}, tmp_path))
    assert places(resolved) == {"data.root", "data.test", "backbone.weights", "penalties.muc.other.root"}
    assert list(weight_files(resolved)) == ["backbone.weights"]
