"""The kit: what a component changes inside a step is kept, and long work goes on where it was left."""

import pytest
import torch

from lwmfw import Penalty, Refiner, Selection, Selector, hookimpl
from lwmfw.errors import RunFailed
from lwmfw.record import checkpoint
from lwmfw.stopping import STOP
from lwmfw.testing import check, tiny_run


class Part:
    """A component that does one thing."""

    def __init__(self, options):
        self.options = options


class Rising(Part):
    """Its term grows with the updates of a step."""

    acts_first = True
    stateful = False

    def __init__(self, options):
        super().__init__(options)
        self.slope, self.told = 1, []

    @hookimpl
    def before_step(self):
        self.slope = 1

    @hookimpl
    def compute_penalty(self, new):
        return {"rising": self.slope * new.logits.square().mean()}

    @hookimpl
    def after_update(self):
        self.told.append(self.slope)  # nothing comes of it
        self.slope += 1


class Kept(Rising):
    """The same, kept."""

    def state(self):
        return {"slope": self.slope}

    def restore(self, state):
        self.slope = state["slope"]


class Half(Kept):
    """The same, kept for nothing."""

    def restore(self, state):
        pass


class Fitted(Part):
    """A selector that looks at the model after training, where a run can be left and gone on with."""

    first = 0

    @hookimpl
    def after_training(self, step):
        self.first = step.index

    @hookimpl
    def select_memory(self, candidates, quota):
        return Selection({c: (candidates.labels == c).nonzero().flatten()[self.first :][:n] for c, n in quota.items()})


NOT_KEPT = [
    (
        Penalty("x", Rising),
        "Rising changes `slope`, `told` in compute_penalty or after_update, which no state() keeps",
    ),
    (
        Penalty("x", Half),
        "Half changes `slope`, `told` in compute_penalty or after_update, which state() does not",
    ),
]


@pytest.mark.parametrize(("record", "sentence"), NOT_KEPT, ids=["without a state", "with half of one"])
def test_what_changes_inside_a_step_has_to_be_kept(record, sentence):
    with pytest.raises(AssertionError) as told:
        check(record, {"stationary": False})
    assert sentence in str(told.value)


def test_what_is_read_behind_the_phases_has_to_be_kept_too(monkeypatch):
    monkeypatch.setattr("lwmfw.testing.checks.check_selector", lambda instance: None)  # which knows only selections
    with pytest.raises(AssertionError, match="Fitted changes `first` in after_training, which no state"):
        check(Selector("x", Fitted))


def test_what_is_kept_or_of_no_consequence_passes():
    check(Penalty("x", Kept), {"stationary": False})


def test_a_component_that_the_tiny_recipe_cannot_run_is_told_and_a_recipe_helps():
    needing = type("Needing", (Rising,), {"needs": frozenset({"similarities"}), "__doc__": Rising.__doc__})
    with pytest.warns(
        UserWarning, match="x was not tried inside a step: examined: x needs 'similarities'.*give a `recip"
    ):
        check(Penalty("x", needing), {"stationary": False})
    with pytest.raises(AssertionError, match="Needing changes"):
        check(Penalty("x", needing), {"stationary": False, "recipe": {"classifier": {"use": "cosine"}}})


class Slow(Part):
    """A refiner that works long: it draws a grey level for every exemplar, and can be left behind each."""

    pauses = True
    numbers = True

    def __init__(self, options):
        super().__init__(options)
        self.levels, self.drawn = [], None

    @hookimpl(wrapper=True)
    def select_memory(self, run, candidates, rng, name):
        selection = yield
        before = selection.images(candidates)
        if self.drawn is not None and self.numbers:
            rng.set_state(self.drawn)
        for _ in range(len(self.levels), len(before)):
            self.levels.append(int(torch.randint(256, (), generator=rng)))
            self.drawn = rng.get_state()
            run.pause(name)
        grey = torch.tensor(self.levels, dtype=torch.uint8)
        self.levels, self.drawn = [], None
        pixels = grey.view(-1, 1, 1, 1).expand_as(before.pixels)
        return Selection(selection.indices, {c: pixels[before.labels == c].clone() for c in selection.indices})

    def state(self):
        return {"levels": self.levels} | ({} if self.drawn is None else {"drawn": self.drawn})

    def restore(self, state):
        self.levels, self.drawn = list(state["levels"]), state.get("drawn")


class Careless(Slow):
    """The same, which forgets its random numbers."""

    numbers = False


def test_long_work_that_pauses_is_left_there_and_has_to_go_on_from_its_state():
    check(Refiner("x", Slow))
    with pytest.raises(AssertionError, match=r"Careless changes .*`drawn`.* in between pauses, which st"):
        check(Refiner("x", Careless))


def test_who_pauses_says_so_before(tmp_path):
    unsaid = type("Unsaid", (Slow,), {"pauses": False, "__doc__": Slow.__doc__})
    tables = {"memory": {"budget": "2 per class", "select": {"use": "random"}, "refine": [{"use": "x"}]}}
    said = (
        r"Unsaid\.select_memory raised ValueError: run\.pause: 'x' is no component that says pauses; set pauses = True"
    )
    with pytest.raises(RunFailed, match=said):
        tiny_run(tables, tmp_path, components=[Refiner("x", unsaid)])


@pytest.mark.parametrize("hook", ["before_step", "after_epoch", "after_run"])
def test_a_pause_where_there_is_no_stage_keeps_nothing_and_ends_nothing(hook, tmp_path, monkeypatch):
    """Before the phases, in them and behind the run: a place of the stage before would be a false one."""
    kept, save = [], checkpoint.save_inside

    def noted(folder, place, step, serial):
        kept.append((step, place.facts["progress"]["stage"], place.facts["progress"]["updates"]))
        save(folder, place, step, serial)

    def paused(self, **offered):
        wished, before = STOP.wished, len(kept)
        STOP.wished = True
        offered["run"].pause(offered["name"])
        STOP.wished = wished
        assert len(kept) == before

    pausing = Refiner("x", type("Pausing", (Slow,), {"__doc__": Slow.__doc__, hook: asking(paused)}))
    monkeypatch.setattr(checkpoint, "save_inside", noted)
    memory = {"budget": "2 per class", "select": {"use": "random"}, "refine": [{"use": "x"}]}
    assert tiny_run({"memory": memory}, tmp_path, components=[pausing]).results.complete


def asking(function):
    """A hook that asks for the run and its own name."""

    def hook(self, run, name):
        function(self, run=run, name=name)

    return hookimpl(hook)
