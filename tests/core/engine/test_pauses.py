"""Long work of components in the stages behind the phases: left between its pieces, gone on with to the same bits."""

import copy
import itertools
from collections import Counter
from typing import ClassVar

import pytest
import torch
from helpers.inside import Dying, bits

from lwmfw import Observer, Selection, Selector, hookimpl
from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import EVALUATION, MEMORY, READOUTS, SaveEvery
from lwmfw.errors import Interrupted, NotFinite
from lwmfw.recipe.load import load_recipe
from lwmfw.stopping import STOP
from lwmfw.testing import check, tiny_recipe
from lwmfw.testing.tiny import beside_installed

PIECES = 3
STAGES = (READOUTS, MEMORY, EVALUATION)


class Works:
    """Draws so many numbers in each stage, and can be left behind each; says what they are."""

    pauses = True
    forgets: ClassVar = ()
    made: ClassVar = []
    """All pieces that were worked on, whatever became of them."""

    def __init__(self, options):
        self.drawn, self.numbers = {}, None

    def work(self, stage, run, rng, name):
        drawn = self.drawn.setdefault(stage, [])
        if self.numbers is not None and stage not in self.forgets:
            rng.set_state(self.numbers)
        for _ in range(len(drawn), PIECES * run.position.step):
            drawn.append(int(torch.randint(1000, (), generator=rng)))
            self.numbers = rng.get_state()
            self.made.append((name, stage))
            run.pause(name)
        self.numbers = None

    @hookimpl
    def after_training(self, run, rng, name):
        self.work("read-outs", run, rng, name)

    @hookimpl
    def before_memory(self, run, rng, name):
        self.work("memory", run, rng, name)

    @hookimpl
    def after_step(self, run, result, rng, name):
        self.work("evaluation", run, rng, name)
        result.extra[name] = copy.deepcopy(self.drawn)

    def state(self):
        return {"drawn": self.drawn} | ({} if self.numbers is None else {"numbers": self.numbers})

    def restore(self, state):
        self.drawn, self.numbers = state["drawn"], state.get("numbers")


class Tells:
    """Keeps what it is told in a list, which is its state itself."""

    def __init__(self, options):
        self.told = []

    @hookimpl
    def before_memory(self, candidates):
        self.told.append(len(candidates))

    def state(self):
        return {"told": self.told}

    def restore(self, state):
        self.told = state["told"]


TABLES = {
    "memory": {"budget": "2 per class", "select": {"use": "random"}},
    "observers": [{"use": "tells"}, {"use": "works"}, {"use": "works", "as": "also"}],
}


def run(folder, every, tables=TABLES, components=()):
    """A run of components that work long, gone on with."""
    folder.mkdir(exist_ok=True)
    known = [Observer("works", Works), Observer("tells", Tells), *components]
    recipe = load_recipe(tiny_recipe(tables, folder), catalogue=beside_installed(known, []))
    prepared = prepared_run(assemble(recipe), "cpu", None)
    prepared.save_every = every
    return record(prepared, folder / "run", "auto")


def same(done, whole):
    (told, tensors), (again, resumed) = whole, bits(done)
    return again == told and tensors.keys() == resumed.keys() and all(v.equal(resumed[k]) for k, v in tensors.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return bits(run(tmp_path_factory.mktemp("whole"), SaveEvery()))


@pytest.mark.parametrize("stage", STAGES)
def test_components_that_are_left_twice_in_a_stage_make_no_piece_again(stage, whole, tmp_path, monkeypatch):
    """Once in the work of the first, and once in that of the second."""
    Works.made.clear()
    dying = Dying(monkeypatch)
    for _ in range(2):  # behind the stage's beginning and two pieces, and behind the third one and two of the other's
        seen = itertools.count()
        dying.at = lambda place, seen=seen: place[:2] == (2, stage) and next(seen) == 2
        with pytest.raises(Interrupted):
            run(tmp_path, SaveEvery(updates=1))
    dying.at = None
    assert same(run(tmp_path, SaveEvery(updates=1)), whole)
    both = [(name, part) for name in ("works", "also") for part in ("read-outs", "memory", "evaluation")]
    assert Counter(Works.made) == dict.fromkeys(both, 2 * PIECES)


def test_pieces_are_kept_as_often_as_is_asked_for(whole, tmp_path, monkeypatch):
    kept = Dying(monkeypatch)
    for number, every in enumerate((SaveEvery(updates=2), SaveEvery(1e-9), SaveEvery())):
        kept.stages.clear()
        assert same(run(tmp_path / str(number), every), whole)
        pieces = [sum(place[:2] == (2, stage) for place in kept.stages) for stage in STAGES]
        assert pieces == [[1 + PIECES] * 3, [1 + 2 * PIECES] * 3, [0] * 3][number]


def test_a_run_that_is_told_to_stop_in_a_piece_is_kept_behind_it(whole, tmp_path, monkeypatch):
    work = Works.work

    def wished(self, stage, run, rng, name):
        STOP.wished = stage == "evaluation" and run.position.step == 2
        work(self, stage, run, rng, name)

    monkeypatch.setattr(Works, "work", wished)
    with pytest.raises(Interrupted, match=r"1 finished step is kept, and step 2 as far as it had come"):
        run(tmp_path, SaveEvery())
    monkeypatch.undo()
    assert same(run(tmp_path, SaveEvery()), whole)


def test_weights_that_are_not_finite_are_not_kept_by_a_pause(tmp_path, monkeypatch):
    kept, work = Dying(monkeypatch), Works.work

    def spoilt(self, stage, run, rng, name):
        with torch.no_grad():
            next(run.model.parameters()).fill_(torch.nan)
        work(self, stage, run, rng, name)

    monkeypatch.setattr(Works, "work", spoilt)
    with pytest.raises(NotFinite, match=r"weights '.*' are not finite"):
        run(tmp_path, SaveEvery(1e-9))
    assert [place[1] for place in kept.stages if place[1] >= READOUTS] == [READOUTS], "before they were spoilt"


class Chooses(Works):
    """Selects the first images of each class, at length: for a phase of balanced images too."""

    @hookimpl
    def select_memory(self, run, candidates, quota, rng, name):
        self.work("selection", run, rng, name)
        return Selection({c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()})


def test_a_signal_where_a_balanced_phase_asks_for_a_selection_is_heard_behind_its_first_update(tmp_path, monkeypatch):
    kept, work = Dying(monkeypatch), Works.work

    def wished(self, stage, run, rng, name):
        STOP.wished = stage == "selection" and run.position.step == 2
        work(self, stage, run, rng, name)

    monkeypatch.setattr(Works, "work", wished)
    tables = TABLES | {"phases": [{"use": "balanced", "epochs": 1}]}
    tables["memory"] = {"budget": "2 per class", "select": {"use": "chooses"}}
    with pytest.raises(Interrupted, match="step 2 as far as it had come"):
        run(tmp_path, SaveEvery(), tables, [Selector("chooses", Chooses)])
    assert kept.stages == [(2, 1, 1)]


@pytest.mark.parametrize("forgotten", ["read-outs", "memory", "evaluation"])
def test_the_examination_finds_who_goes_on_wrongly_in_any_stage(forgotten):
    check(Observer("works", Works))
    careless = type("Careless", (Works,), {"forgets": (forgotten,), "__doc__": Works.__doc__})
    with pytest.raises(AssertionError, match=r"Careless changes .* between pauses, which state\(\) does not keep"):
        check(Observer("works", careless))
