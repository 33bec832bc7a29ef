"""Whatever prepares a run tells what stops it in words, and blames the component that it comes from."""

import re

import pytest
from helpers.command import lwmfw

from lwmfw.testing import tiny_recipe

SHOP = '''
"""A data set, a backbone and a penalty in one file."""
import torch
from torch import nn
from lwmfw import Backbone, Data, Features, Penalty, hookimpl
from lwmfw_plugins.data.synthetic import Synthetic, SyntheticOptions

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images):
        {forward}
        return Features(images.mean((2, 3)) * self.scale, [], [], None)

class Body:
    offers = frozenset({{"features"}})

    def __init__(self, options):
        pass

    def build(self, channels):
        return Net()

class Own(Synthetic):
    pass

class Asking:
    def __init__(self, options):
        pass

    @hookimpl
    def compute_penalty(self, model, batch):
        {asking}

@hookimpl
def register_components():
    yield Data("own-data", Own, SyntheticOptions)
    yield Backbone("own-body", Body)
    yield Penalty("asking", Asking)
'''


def shop_recipe(folder, forward="pass", asking="pass", **tables):
    file = folder / "shop.py"
    file.write_text(SHOP.format(forward=forward, asking=asking))
    return tiny_recipe({"backbone": {"use": "own-body"}, "plugins": [str(file)]} | tables, folder)


@pytest.mark.parametrize(
    "verb", [["run", "--dry-run"], ["run", "--out", "run"], ["search", "--lr", "0.1", "--out", "found"]], ids=str
)
@pytest.mark.parametrize("forward", ["return images", "raise SystemExit(0)"])
def test_a_network_that_is_none_is_blamed_by_every_verb(verb, forward, tmp_path):
    done = lwmfw(verb[0], shop_recipe(tmp_path, forward), *verb[1:])
    assert done.returncode == 1, done.stderr
    assert re.match(r"shop\.py: own-body", done.stderr.splitlines()[-1])


def test_of_a_file_with_a_data_set_and_a_backbone_the_one_that_failed_is_blamed(tmp_path):
    data = {"use": "own-data", "classes": 4, "train_per_class": 4, "test_per_class": 2, "size": 8}
    recipe = shop_recipe(tmp_path, "if self.training: raise ValueError('here')", data=data)
    done = lwmfw("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert re.match(r"shop\.py:\d+: own-body raised ValueError: here; the run stopped in step 1", _last(done))


def test_a_penalty_that_asks_a_shipped_network_for_what_it_does_not_take_is_blamed(tmp_path):
    tables = {"backbone": {"use": "resnet20", "width": 4}, "penalties": [{"use": "asking"}]}
    recipe = shop_recipe(tmp_path, asking="return {'term': model(batch.images[:, :1]).logits.mean()}", **tables)
    done = lwmfw("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert re.match(r"shop\.py:\d+: asking raised RuntimeError: ", _last(done))


def test_a_batch_of_one_image_whose_maps_are_of_one_pixel_is_told_in_words(tmp_path):
    tables = {
        "data": {"use": "synthetic", "classes": 4, "train_per_class": 8, "test_per_class": 4, "size": 4},
        "backbone": {"use": "resnet20", "width": 4},
        "training": {"epochs": 1, "batch_size": 1},
    }
    done = lwmfw("run", tiny_recipe(tables, tmp_path), "--out", tmp_path / "run")
    assert done.returncode == 1
    assert re.match(r"training\.batch_size: a batch of one image, .* step 1, .*; change training\.batch", _last(done))


def test_a_plan_refuses_the_first_step_that_the_run_would_refuse(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    plan = lwmfw("run", recipe, "--dry-run", "--from", tmp_path / "nothing")
    run = lwmfw("run", recipe, "--out", tmp_path / "run", "--from", tmp_path / "nothing")
    assert (plan.returncode, plan.stderr) == (run.returncode, run.stderr)
    assert plan.returncode == 2


def _last(done):
    return done.stderr.splitlines()[-1]
