"""Mnemonics: the steps on pixels, whose data they are judged on, and what a run keeps of it."""

import json

import pytest
import torch
from helpers import inside
from helpers.inside import Dying, bits
from helpers.pictures import make_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn.functional import dropout
from torch.testing import assert_close

from lwmfw import UserError
from lwmfw.engine.progress import MEMORY as IN_MEMORY
from lwmfw.errors import Interrupted, RunFailed
from lwmfw.testing import tiny_run
from lwmfw_plugins._pictures import evenly_spread
from lwmfw_plugins.refiners import mnemonics
from lwmfw_plugins.refiners.mnemonics import Way, adjusted
from lwmfw_plugins.refiners.mnemonics._gradients import RULES, trained_on

RATE = 0.3
MEMORY = {"budget": "4 per class", "select": {"use": "herding"}}
SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
FEW = {"use": "mnemonics", "iterations": 3, "batch_size": 4, "queries": 8}


# steps on pixels


def test_a_step_has_a_length_and_a_momentum():
    pixels = torch.full((2, 1, 3, 3), 100, dtype=torch.uint8)
    slopes = torch.randn(3, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    given = iter(slopes)
    now, _, losses = adjusted(Way.beginning(pixels), lambda e: (e.mean(), next(given)), 3, lr=0.5, momentum=0.9)
    expected, velocity = pixels.float(), 0
    for slope in slopes:
        velocity = 0.9 * velocity + slope / slope.square().mean().sqrt()
        expected = expected - 0.5 * velocity
    assert_close(now, expected)
    assert losses[0] == 100
    assert losses.shape == (3,)


@given(seed=st.integers(0, 10**6), lr=st.floats(0.1, 255))
def test_pixels_stay_those_of_an_image(seed, lr):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (2, 1, 2, 2), dtype=torch.uint8, generator=rng)
    way = Way.beginning(pixels)
    now, *_ = adjusted(way, lambda e: (e.sum(), torch.randn(e.shape, generator=rng)), 4, lr, 0.9)
    assert now.min() >= 0
    assert now.max() <= 255


def test_no_gradient_is_no_change():
    pixels = torch.full((1, 1, 2, 2), 7, dtype=torch.uint8)
    now, *_ = adjusted(Way.beginning(pixels), lambda e: (e.sum(), torch.zeros_like(e)), 5, 1.0, 0.9)
    assert torch.equal(now, pixels.float())


# runs


def run_with(tmp_path, refiner, **tables):
    tmp_path.mkdir(exist_ok=True)
    memory = MEMORY | tables.pop("memory", {}) | {"refine": [refiner] if refiner else []}
    return tiny_run(SEEN | {"memory": memory} | tables, tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("plain"), None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("made"), FEW)


def test_what_is_stored_was_changed_and_says_by_how_much(plain, made):
    before, after = plain.run.memory.images(), made.run.memory.images()
    assert torch.equal(before.labels, after.labels)
    told = made.results.steps[-1].extra["mnemonics"]
    assert list(told) == ["new", "old A", "old B"]
    assert [part["exemplars"] for part in told.values()] == [8, 4, 4]
    assert all(0 < part["change"] < 10 and part["rounding"] <= 0.5 for part in told.values())
    # the first step's selection does not depend on what is stored of it
    first = made.results.steps[0].extra["mnemonics"]
    assert list(first) == ["new"]
    assert not torch.equal(before.pixels[:8], after.pixels[:8])


def test_the_model_is_left_as_it_was(plain, made, tmp_path):
    # one step later the exemplars differ and so do the models: the first step tells
    assert made.results.steps[0].accuracy == plain.results.steps[0].accuracy
    one = {"scenario": {"first": 4, "increment": 0}}
    plain, made = run_with(tmp_path / "a", None, **one), run_with(tmp_path / "b", FEW, **one)
    for name, value in plain.run.model.state_dict().items():
        assert torch.equal(value, made.run.model.state_dict()[name]), name


def test_new_exemplars_are_judged_on_the_data_and_each_half_of_the_old_on_the_other(tmp_path, monkeypatch):
    asked = []

    def noting(run, labels, queries, options, rng):
        asked.append((labels.tolist(), queries))
        return lambda pixels: (pixels.mean(), torch.ones_like(pixels))

    monkeypatch.setitem(RULES, "unrolled", noting)
    run_with(tmp_path, FEW | {"lr": 5.0, "momentum": 0.0})
    (_, first), (labels, new), (half, other), (rest, changed) = asked
    assert len(first) == 32, "all training images of the classes of step 1"
    assert labels == [2] * 4 + [3] * 4
    assert new.labels.tolist() == [2] * 16 + [3] * 16
    assert half == rest == [0, 0, 1, 1]
    assert other.labels.tolist() == changed.labels.tolist() == [0, 0, 1, 1]
    assert not torch.equal(other.pixels, changed.pixels), "the halves are disjoint"


def test_fresh_networks_adjust_old_and_new_exemplars_and_leave_the_run_alone(tmp_path):
    scratch = FEW | {"rule": "from-scratch", "unrolled": 5, "inner_lr": 1.0, "epochs": 2, "renew": 2}
    one = {"scenario": {"first": 4, "increment": 0}}
    plain, made = run_with(tmp_path / "a", None, **one), run_with(tmp_path / "b", scratch, **one)
    for name, value in plain.run.model.state_dict().items():
        assert torch.equal(value, made.run.model.state_dict()[name]), name
    told = run_with(tmp_path / "c", scratch).results.steps[-1].extra["mnemonics"]
    assert list(told) == ["new", "old A", "old B"]
    assert told["new"]["images_shown"] == 3 * (8 + 8)
    again = run_with(tmp_path / "d", scratch).results.steps[-1].extra["mnemonics"]
    assert told == again


@pytest.mark.parametrize("options", [{"old": False}, {"rule": "class-means"}])
def test_older_exemplars_can_be_left_alone(options, tmp_path):
    run = run_with(tmp_path, FEW | options)
    assert [list(step.extra["mnemonics"]) for step in run.results.steps] == [["new"], ["new"]]


def test_the_run_directory_has_the_cost_and_a_picture_of_each_step(made):
    path = made.path / "mnemonics"
    assert sorted(file.name for file in path.iterdir()) == [
        "step-1.json", "step-1.png", "step-2.json", "step-2.png",
    ]  # fmt: skip
    cost = json.loads((path / "step-2.json").read_text())
    assert cost["new"]["images_shown"] == 3 * (3 * 4 + 8)
    assert cost["images_per_s"] * cost["seconds"] == pytest.approx(3 * 3 * (3 * 4 + 8))
    with Image.open(path / "step-2.png") as picture:
        assert picture.width > 3 * 4 * 64
        assert picture.height > 4 * 64


def test_a_picture_shows_the_first_and_the_last_class():
    labels = torch.arange(20).repeat_interleave(5)
    positions, classes, columns = evenly_spread(labels, 3)
    assert classes == [0, 10, 19]
    assert columns == 3
    assert positions.tolist() == [0, 1, 2, 50, 51, 52, 95, 96, 97]


@pytest.mark.slow
def test_single_exemplars_have_no_other_half(tmp_path):
    for rule in RULES:
        made = run_with(tmp_path / rule, FEW | {"rule": rule, "epochs": 1}, memory={"budget": "1 per class"})
        assert [list(step.extra["mnemonics"]) for step in made.results.steps] == [["new"], ["new"]]


@pytest.mark.slow
def test_two_of_them_follow_one_another_under_their_own_names(tmp_path):
    run = tiny_run(SEEN | {"memory": MEMORY | {"refine": [FEW, FEW | {"as": "again"}]}}, tmp_path)
    for name in ("mnemonics", "again"):
        assert run.results.steps[-1].extra[name]["new"]["exemplars"] > 0
        assert (run.path / name / "step-2.png").exists()


@pytest.mark.slow
def test_exemplars_in_jpeg_are_refined_too(tmp_path):
    jpeg = {"codec": {"use": "jpeg", "quality": 75}}
    plain = run_with(tmp_path / "plain", None, memory=jpeg).run.memory
    made = run_with(tmp_path / "made", FEW, memory=jpeg).run.memory
    assert all(stored.encoded.startswith(b"\xff\xd8") for stored in made.exemplars)
    assert [s.encoded for s in made.exemplars] != [s.encoded for s in plain.exemplars]


@pytest.mark.parametrize("rule", [{}, {"rule": "class-means"}, {"rule": "from-scratch", "renew": 2, "epochs": 2}])
def test_a_run_that_is_left_between_steps_on_pixels_goes_on_with_the_next(rule, tmp_path, monkeypatch):
    """To the same bits; what was done is not done again. A fresh network is not kept: such steps go in pieces."""
    recipe = SEEN | {"memory": MEMORY | {"refine": [FEW | {"iterations": 4} | rule]}}
    asked, refine = [], adjusted

    def counted(way, gradient, *rest):
        return refine(way, lambda pixels: asked.append(1) or gradient(pixels), *rest)

    monkeypatch.setattr(mnemonics, "adjusted", counted)
    dying = Dying(monkeypatch)
    told = bits(inside.run(recipe, tmp_path / "whole", updates=1))
    steps = len(asked)
    places = [n for n, (step, stage, _) in enumerate(dying.stages, 1) if (step, stage) == (2, IN_MEMORY)]
    parts = 1 if rule.get("rule") == "class-means" else 3
    assert steps == 4 * (1 + parts), "the first step has new exemplars alone"
    assert len(places) == 1 + (2 if "renew" in rule else 4) * parts, "the stage's beginning, and behind every piece"
    for after in (places[2], places[-1]):
        asked.clear()
        dying.count, dying.after = 0, after
        with pytest.raises(Interrupted):
            inside.run(recipe, tmp_path / str(after), updates=1)
        dying.after = 0
        again, tensors = bits(inside.run(recipe, tmp_path / str(after), updates=1))
        assert again == told[0]
        assert tensors.keys() == told[1].keys()
        assert all(v.equal(told[1][key]) for key, v in tensors.items())
        assert len(asked) == steps


class Drops(nn.Module):
    """A network whose images lose pixels in training."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return self.backbone(dropout(images, 0.5, self.training))


def test_what_a_fresh_network_draws_in_training_follows_from_the_components_rng(made, monkeypatch):
    """A run that goes on between its steps has torch's global generator where the stage began."""
    run, fresh = made.run, made.run.fresh_model

    def dropping(rng):
        model = fresh(rng)
        model.backbone = Drops(model.backbone)
        return model

    def weights(seed):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made = trained_on(run, run.data.train.pixels[:8], run.data.train.labels[:8], 2, torch.Generator())
        assert torch.get_rng_state().equal(before)
        return [p.detach() for p in made.parameters()]

    monkeypatch.setattr(run, "fresh_model", dropping)
    assert all(map(torch.equal, weights(1), weights(2)))


def test_a_temporary_model_that_bursts_is_said_to(tmp_path):
    with pytest.raises(RunFailed, match=r"ValueError: the loss of rule unrolled is not finite; lower inner_lr or lr;"):
        run_with(tmp_path, FEW | {"inner_lr": 10.0, "unrolled": 20})


def test_images_that_stay_in_their_files_are_refused(tmp_path):
    make_folder(tmp_path / "pictures")
    data = {"use": "folder", "root": str(tmp_path / "pictures"), "size": 8}
    with pytest.raises(UserError, match=r'the images stay in their files .*; set data\.decode = "once"'):
        run_with(tmp_path / "run", FEW, data=data, scenario={"first": 2, "increment": 0})
