"""Numbers that are not finite: found wherever they come in, and nothing is kept that has one."""

import hashlib
import re

import pytest
import torch

from lwmfw import Options, Penalty, Readout, hookimpl
from lwmfw.engine import progress
from lwmfw.errors import NotFinite
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_run

BATCHES = 4
"""Updates of an epoch, of which a step has two."""


class Gradient(torch.autograd.Function):
    """The same value, and a gradient that is not finite."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.inf


class Poisonous:
    """Does one bad thing, at an update (counted from 1) or a moment of a step."""

    acts_first = True
    step_of_it, update, moment, bad = 1, 1, "", torch.nan

    def __init__(self, options):
        self.count = 0

    @hookimpl
    def before_step(self, run, step):
        self.run, self.count = run, 0
        if step.index == self.step_of_it:
            Poisonous.kept = kept(run.directory.checkpoints)

    def now(self, step, moment, update):
        return (step.index, moment, update) == (self.step_of_it, self.moment, self.update)

    @hookimpl
    def compute_penalty(self, step, new):
        self.count += 1
        term = new.logits.mean()
        if self.now(step, "term", self.count):
            term = term * self.bad
        if self.now(step, "gradient", self.count):
            term = Gradient.apply(term)
        return {"fine": new.logits.square().mean(), "poison": term}

    @hookimpl
    def after_update(self, step, model):
        with torch.no_grad():
            if self.now(step, "weights", self.count):
                next(model.classifier.parameters())[0] = self.bad
            if self.now(step, "statistics", self.count):
                next(b for name, b in model.named_buffers() if name.endswith("running_mean"))[:] = self.bad

    @hookimpl
    def after_training(self, step, model):
        with torch.no_grad():
            if self.now(step, "logits", self.update):
                next(model.classifier.parameters())[0] = self.bad
            if self.now(step, "features", self.update):
                next(model.backbone.parameters())[:] = self.bad

    @hookimpl
    def after_step(self, step, model):
        with torch.no_grad():
            if self.now(step, "after all", self.update):
                next(model.backbone.parameters())[:] = self.bad


def kept(folder):
    """Digests of all that lies in a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def poisoned(folder, record, **more):
    """What is said of a run that goes bad; all that it has kept is as it was, and finite."""
    recipe = {
        "data": {"train_per_class": 8},
        "training": {"epochs": 2, "batch_size": 4},
        "objective": {"use": "cross_entropy", "over": "seen"},
        **more,
    }
    with pytest.raises(NotFinite) as error:
        tiny_run(recipe, folder, components=[record])
    left = folder / "run" / "checkpoints"
    assert {name: of for name, of in kept(left).items() if name.startswith("step")} == Poisonous.kept
    inside = [checkpoint.read(path) for step in (1, 2) if (path := checkpoint.inside(left, step))]
    for whole in (checkpoint.load(left), *inside):
        assert whole is None or all(value.isfinite().all() for value in whole.model.values())
    assert not (folder / "run" / "DONE").exists()
    assert error.value.exit_code == 1
    said = str(error.value)
    assert "\n" not in said
    return said


def penalty(moment, step, update=1, bad=torch.nan):
    values = {"moment": moment, "step_of_it": step, "update": update, "bad": bad}
    return Penalty("poison", type("Poison", (Poisonous,), values), Options)


SOMETIME = "(term '(fine|poison|cross_entropy)' is|weights '.*' are) not finite; the run stopped in step {step}, epoch "
LATER = "are not finite; the run stopped in step {step}; "
FOUND = {
    "term": "term 'poison' is not finite; the run stopped in step {step}, epoch {epoch}, batch {batch}; start anew",
    "gradient": SOMETIME,
    "weights": SOMETIME,
    "statistics": SOMETIME,
    "logits": r"lwmfw [\d.]+: cnn.scores of (16|32) of (16|32) test images " + LATER + "mend it, or start anew",
    "features": "features of (16|32) of (16|32) test images " + LATER + "start anew with a lower training.lr",
    "after all": "weights 'backbone.stem.0.weight' " + LATER + "start anew with a lower training.lr",
}
"""What goes bad -> what is said of it."""

UPDATES = {1: (1, 1), 6: (2, 2), 8: (2, 4)}
"""The first, one in the middle, and the last of a step -> their epoch and batch."""

FAST = {
    *(("term", 2, 6, bad) for bad in (torch.nan, torch.inf)),
    *((moment, 1, 8, torch.inf) for moment in ("gradient", "weights", "statistics")),
}
ALL = [
    (moment, step, update, bad)
    for moment in ("term", "gradient", "weights", "statistics")
    for step in (1, 2)
    for update in UPDATES
    for bad in (torch.nan, torch.inf, -torch.inf)
]


def marked(cases):
    return [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(("moment", "step", "update", "bad"), marked(ALL))
def test_what_goes_bad_in_training_is_found_and_told_where(moment, step, update, bad, tmp_path):
    said = poisoned(tmp_path, penalty(moment, step, update, bad), penalties=[{"use": "poison"}])
    epoch, batch = UPDATES[update]
    assert re.match(FOUND[moment].format(step=step, epoch=epoch, batch=batch), said)


@pytest.mark.parametrize("moment", ["gradient", "weights", "statistics"])
def test_within_an_update_where_it_is_time_to_look(moment, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOOK", -1.0)
    said = poisoned(tmp_path, penalty(moment, 2, 6), penalties=[{"use": "poison"}])
    assert re.match("weights '.*' are not finite; the run stopped in step 2, epoch 2, batch 2; start anew", said)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("moment", ["logits", "features", "after all"])
def test_what_goes_bad_behind_training_is_found_before_anything_is_kept(moment, step, tmp_path):
    said = poisoned(tmp_path, penalty(moment, step), penalties=[{"use": "poison"}])
    assert re.match(FOUND[moment].format(step=step), said)


@pytest.mark.parametrize("select", ["herding", "closest"])
def test_exemplars_are_not_selected_by_features_that_are_not_finite(select, tmp_path):
    memory = {"budget": "2 per class", "select": {"use": select}}
    said = poisoned(tmp_path, penalty("features", 2), penalties=[{"use": "poison"}], memory=memory)
    assert re.match(r"features of \d+ of \d+ images are not finite; the run stopped in step 2; start anew", said)


def scoring(bad):
    """A read-out of which one score of one image is bad, in the second step."""

    class Scoring:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, run, step):
            self.seen, self.bad = len(step.seen_classes), bad if step.index == 2 else 0.0
            Poisonous.kept = kept(run.directory.checkpoints)

        def scores(self, features):
            found = features.mean(1, keepdim=True).repeat(1, self.seen)
            found[3, -1] = self.bad
            return found

    return Readout("poison", Scoring)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_the_read_outs(bad, tmp_path):
    said = poisoned(tmp_path, scoring(bad), readouts=[{"use": "cnn"}, {"use": "poison"}])
    assert said == (
        "test: poison.scores of 1 of 32 test images are not finite; the run stopped in step 2; mend it, or start anew "
        "with a lower training.lr"
    )


def test_a_score_of_minus_infinity_says_that_nothing_is_known_of_a_class(tmp_path):
    readouts = [{"use": "cnn"}, {"use": "poison"}]
    done = tiny_run({"readouts": readouts}, tmp_path, components=[scoring(-torch.inf)])
    assert done.results.complete
