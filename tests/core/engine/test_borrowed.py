"""A program that calls lwmfw finds its own random numbers and settings of torch as they were, whatever happened."""

import os
import random

import numpy as np
import pytest
import torch
from helpers.months import CLASSES, pictures
from helpers.pictures import make_folder

import lwmfw
from lwmfw import LwmfwError, Observer, hookimpl
from lwmfw.api import execute
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.opened import OpenedRun
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.using.extend import Extension, extended
from lwmfw.using.predict import Predictor, images_of

FLAGS = ("enabled", "benchmark", "deterministic")


def of_the_process():
    """What other code of the process draws and computes with."""
    names, numbers, *rest = np.random.get_state()
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "random": random.getstate(),
        "numpy": (names, numbers.tolist(), rest),
        "torch": torch.get_rng_state().tolist(),
        "cards": [card.tolist() for card in cards],
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "numbers": (torch.get_default_dtype(), torch.is_grad_enabled()),
        "cudnn": [getattr(torch.backends.cudnn, name) for name in FLAGS],
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def spoil():
    """All of it changed, as code of others may."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    torch.utils.deterministic.fill_uninitialized_memory ^= True
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    for name in FLAGS:
        setattr(torch.backends.cudnn, name, not getattr(torch.backends.cudnn, name))
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = "spoilt"


class Spoiler:
    """An observer that leaves nothing as it was at the end of step 1, and may raise then."""

    fails = False

    def __init__(self, options):
        pass

    @hookimpl
    def after_step(self, step):
        if step.index == 2:
            spoil()
        elif Spoiler.fails:
            random.random()
            raise ValueError("spoilt")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, one that stopped behind its first step, and folders of pictures."""
    place = tmp_path_factory.mktemp("place")
    for name in ("done", "left", "anew", "fails"):
        (place / name).mkdir()
    tiny_run({"readouts": [{"use": "ridge"}]}, place / "done")
    Spoiler.fails = True
    with pytest.raises(LwmfwError):
        tiny_run({"observers": [{"use": "spoiler"}]}, place / "fails", components=[Observer("spoiler", Spoiler)])
    Spoiler.fails = False
    pictures(place / "april", CLASSES["april"])
    make_folder(place / "images", count=2)
    stopping = "from lwmfw import *\nclass Stops:\n    def __init__(self, options): pass\n    @hookimpl\n"
    stopping += "    def before_step(self, step):\n        if step.index == 2: raise ValueError\n@hookimpl\n"
    (place / "left" / "stops.py").write_text(
        stopping + "def register_components():\n    yield Observer('stops', Stops)\n"
    )
    with pytest.raises(LwmfwError):
        tiny_run({"plugins": ["stops.py"], "observers": [{"use": "stops"}]}, place / "left")
    mended = (place / "left" / "stops.py").read_text().replace("raise ValueError", "pass")
    (place / "mended").mkdir()
    (place / "mended" / "stops.py").write_text(mended)
    return place


def spoilt_run(place):
    tiny_run({"observers": [{"use": "spoiler"}]}, place / "anew", components=[Observer("spoiler", Spoiler)])


def failed_run(place):
    Spoiler.fails = True
    try:
        with pytest.raises(LwmfwError):
            tiny_run({"observers": [{"use": "spoiler"}]}, place / "fails", components=[Observer("spoiler", Spoiler)])
    finally:
        Spoiler.fails = False


def refused_run(place):
    with pytest.raises(LwmfwError):
        lwmfw.run(tiny_recipe({"data": {"use": "folder", "root": str(place / "gone")}}, place))


def opened(place):
    run = lwmfw.open_run(place / "done" / "run")
    assert run.model.classes == 4
    run.model_at(1)


def decided(place):
    predictor = Predictor(OpenedRun(place / "done" / "run"))
    paths = images_of([place / "images"])
    assert len(predictor.decisions(paths, 1, print, lambda done: None)) == 4


def added(place):
    wanted = Extension(place / "april", None, 0.2, False, False, {"backbone.width": 4})
    execute(assemble(extended(OpenedRun(place / "done" / "run"), wanted)), place / "added", "cpu", "auto")


CALLS = {
    "run": lambda place: lwmfw.run(tiny_recipe({}, place), out=place / "by-name", device="cpu"),
    "a run with a component that spoils all": spoilt_run,
    "a run that fails": failed_run,
    "a run that is refused": refused_run,
    "resume": lambda place: lwmfw.resume(place / "left" / "run", plugins=place / "mended" / "stops.py"),
    "open_run": opened,
    "predict": decided,
    "extend": added,
}


@pytest.mark.parametrize("call", CALLS)
def test_the_process_is_as_it_was(call, place):
    torch.manual_seed(11)
    random.seed(11)
    before = of_the_process()
    CALLS[call](place)
    assert of_the_process() == before


def test_it_is_seen_where_one_of_them_changes():
    with given_back():
        before = of_the_process()
        spoil()
        after = of_the_process()
        assert [name for name in before if before[name] == after[name]] in ([], ["cards"])


def test_what_a_card_draws_goes_on_from_the_seed_that_was_set(monkeypatch):
    """Of a GPU that nothing has used yet, a program may have set the seed already."""
    seeds = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    torch.manual_seed(12)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with given_back():
        torch.manual_seed(13)
    assert seeds[-1] == 12
