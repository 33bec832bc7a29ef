"""`run --from RUN`: the first step of another run in place of training it again."""

import json
import re
from dataclasses import replace

import pytest
import torch

import lwmfw
from lwmfw import ExtraPhase, Observer, Penalty, Refiner, hookimpl
from lwmfw.errors import CheckpointRefused, Interrupted, UserError
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.testing.tiny import beside_installed

MEMORY = {"budget": "6 per class", "select": {"use": "random"}}
BASE = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": MEMORY,
}
OTHER = BASE | {
    "name": "other",
    "memory": MEMORY | {"budget": "4 per class", "rate": {"use": "dynamic"}},
    "penalties": [{"use": "L_D"}, {"use": "freeze"}],
    "phases": [{"use": "balanced", "epochs": 1}],
    "readouts": [{"use": "cnn"}, {"use": "nme"}],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_run(BASE, tmp_path_factory.mktemp("finished")).path


def taken_from(path, overrides, folder):
    folder.mkdir(exist_ok=True)
    lwmfw.run(tiny_recipe(overrides, folder), out=folder / "run", device="cpu", from_run=path)
    return folder / "run"


def results(path):
    found = json.loads((path / "results.json").read_text())
    for step in found["steps"]:
        del step["train_seconds"], step["part_seconds"]
    return found


def test_the_result_has_the_bits_of_the_full_run(finished, tmp_path):
    full = tiny_run(OTHER, tmp_path).path
    taken = taken_from(finished, OTHER, tmp_path / "taken")
    first = results(taken).pop("first_step")
    assert results(full) == {key: value for key, value in results(taken).items() if key != "first_step"}
    a, b = (lwmfw.open_run(path).model.state_dict() for path in (full, taken))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    manifest = json.loads((finished / "checkpoints" / "step-0001" / "manifest.json").read_text())
    assert first == {"recipe": "tiny", "checkpoint_sha256": manifest["tensors.safetensors"]}


def test_a_run_that_dies_behind_the_first_step_that_it_has_taken_does_not_train_it(finished, tmp_path, monkeypatch):
    def dies(*given):
        raise KeyboardInterrupt

    whole = results(taken_from(finished, OTHER, tmp_path / "whole"))
    monkeypatch.setattr("lwmfw.loop.evaluate", dies)
    with pytest.raises(Interrupted):
        taken_from(finished, OTHER, tmp_path / "left")
    monkeypatch.undo()
    lwmfw.resume(tmp_path / "left" / "run", device="cpu")
    assert results(tmp_path / "left" / "run") == whole
    assert "first_step" in whole


def test_the_first_step_costs_what_it_cost_where_it_was_trained(finished, tmp_path):
    taken = taken_from(finished, OTHER, tmp_path / "taken")
    rows = [json.loads(line) for line in (taken / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {2, 3}
    first, same = (json.loads((p / "results.json").read_text())["steps"][0] for p in (finished, taken))
    assert (first["train_seconds"], first["epochs"]) == (same["train_seconds"], same["epochs"])
    assert first["epochs"] > 0


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 2}, "seed"),
        ({"training": {"lr": 0.2}}, "training.lr"),
        ({"training": {"first": {"epochs": 2}}}, "training.epochs"),
        ({"scenario": {"first": 4}}, "scenario.first"),
        ({"data": BASE["data"] | {"train_per_class": 8}}, "data.train_per_class"),
        ({"classifier": {"use": "cosine"}}, "classifier.use"),
        ({"evaluation": {"validation": 0.2}}, "evaluation.validation"),
        ({"objective": {"use": "cross_entropy", "over": "new"}, "memory": None}, "objective.over"),
    ],
)
def test_a_first_step_that_was_trained_in_another_way_is_refused_by_its_key(finished, change, key, tmp_path):
    overrides = {name: value for name, value in (BASE | change).items() if value is not None}
    with pytest.raises(UserError, match=rf"its first step was trained in another way \({key} differs\); leave --from"):
        taken_from(finished, overrides, tmp_path / "taken")
    assert not (tmp_path / "taken" / "run").exists()


def test_settings_of_later_steps_may_differ(finished, tmp_path):
    change = {"scenario": {"first": 2, "increment": 4}, "training": {"lr": 0.2, "first": {"lr": 0.1}}}
    assert results(taken_from(finished, BASE | change, tmp_path / "taken"))["complete"]


def test_a_component_that_acts_in_the_first_step_has_to_be_the_same(finished, tmp_path, monkeypatch):
    class Acting:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self):
            return None

        @hookimpl
        def after_update(self):
            pass

    catalogue = beside_installed([Penalty("acting", Acting)])
    monkeypatch.setattr("lwmfw.recipe.load.discover", lambda plugins: catalogue)
    acting = BASE | {"penalties": [{"use": "acting"}]}
    with pytest.raises(UserError, match=r"in another way \(penalties\.acting differs\)"):
        taken_from(finished, acting, tmp_path / "taken")
    (tmp_path / "acting").mkdir()
    again = tiny_run(acting, tmp_path / "acting").path
    assert results(taken_from(again, acting, tmp_path / "taken"))["complete"]
    Acting.state, Acting.restore = lambda self: {}, lambda self, state: None
    with pytest.raises(UserError, match="acting gathers its state while the first step is trained"):
        taken_from(again, acting, tmp_path / "stateful")


def test_a_penalty_with_a_term_in_the_first_step_has_to_be_the_same(finished, tmp_path, monkeypatch):
    class Early:
        acts_first = True

        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self, new):
            return {"early": new.features.square().mean()}

    catalogue = beside_installed([Penalty("early", Early)])
    monkeypatch.setattr("lwmfw.recipe.load.discover", lambda plugins: catalogue)
    early = BASE | {"penalties": [{"use": "early"}]}
    with pytest.raises(UserError, match=r"in another way \(penalties\.early differs\)"):
        taken_from(finished, early, tmp_path / "taken")
    (tmp_path / "early").mkdir()
    again = tiny_run(early, tmp_path / "early").path
    assert results(taken_from(again, early, tmp_path / "taken"))["complete"]


def test_exemplars_may_be_stored_in_another_way(finished, tmp_path):
    codec = {"use": "jpeg", "choose": [30, 90], "tolerance": 1.0}
    other = BASE | {"memory": MEMORY | {"codec": codec, "select": {"use": "herding"}}}
    full = tiny_run(other, tmp_path).path
    for name, source in (("from raw", finished), ("from jpeg", full)):
        taken = results(taken_from(source, other, tmp_path / name))
        assert {key: value for key, value in taken.items() if key != "first_step"} == results(full)


def test_a_plug_in_file_that_was_edited_is_another(tmp_path):
    file = """
from lwmfw import Objective, ObjectiveOptions, hookimpl

class Scaled:
    def __init__(self, options): pass
    def loss(self, logits, labels): return FACTOR * logits.logsumexp(1).mean()

@hookimpl
def register_components(): yield Objective("scaled", Scaled, ObjectiveOptions)
"""
    recipe = {"data": BASE["data"], "plugins": ["scaled.py"], "objective": {"use": "scaled"}}
    (tmp_path / "scaled.py").write_text(file.replace("FACTOR", "1"))
    before = tiny_run(recipe, tmp_path).path
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "scaled.py").write_text(file.replace("FACTOR", "5"))
    with pytest.raises(UserError, match=r"in another way \(objective\.provider differs\)"):
        taken_from(before, recipe, tmp_path / "taken")


def test_a_first_step_in_another_precision_is_refused_before_a_directory_is_made(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("lwmfw.engine.run.Run.arithmetic", property(lambda run: "bf16 on tpu"))
    with pytest.raises(UserError, match="computed in fp32 on cpu, here it would go on in bf16 on tpu; leave"):
        taken_from(finished, BASE, tmp_path / "taken")
    assert not (tmp_path / "taken" / "run").exists()


def test_observers_may_differ(finished, tmp_path, monkeypatch):
    seen = []

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, step):
            seen.append(step.index)

        @hookimpl
        def after_step(self, step):
            seen.append(step.index)

    catalogue = beside_installed([Observer("watch", Watch)])
    monkeypatch.setattr("lwmfw.recipe.load.discover", lambda plugins: catalogue)
    taken_from(finished, BASE | {"observers": [{"use": "watch"}]}, tmp_path / "taken")
    assert seen == [1, 1, 2, 2, 3, 3]


class Even:
    """Trains on what the memory will keep in every step, the first included."""

    def __init__(self, options):
        pass

    @hookimpl
    def plan_phases(self, main):
        return [replace(main, name="even", balanced=True)]


class Even2(Even):
    """Likewise, by a plan that depends on how many steps there are."""

    @hookimpl
    def plan_phases(self, step, main):
        return [replace(main, name="even", balanced=True, epochs=step.total)]


class Keeping:
    """A refiner that changes nothing."""

    def __init__(self, options):
        pass

    @hookimpl(wrapper=True)
    def select_memory(self):
        return (yield)


class Watching(Keeping):
    """One that acts before exemplars are selected, too."""

    @hookimpl
    def before_memory(self):
        pass


@pytest.fixture
def even(monkeypatch):
    """A recipe with a phase of balanced images in the first step."""
    records = [ExtraPhase("even", Even), ExtraPhase("even2", Even2)]
    records += [Refiner("keeping", Keeping), Refiner("watching", Watching)]
    catalogue = beside_installed(records)
    monkeypatch.setattr("lwmfw.recipe.load.discover", lambda plugins: catalogue)
    return BASE | {"phases": [{"use": "even"}]}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"budget": "4 per class"}, "memory.budget"),
        ({"select": {"use": "herding"}}, "memory.select.use"),
        ({"rate": {"use": "dynamic"}}, "memory.rate.use"),
        ({"codec": {"use": "jpeg"}}, "memory.codec.use"),
        ({"refine": [{"use": "watching"}]}, "memory.refine.watching"),
    ],
)
def test_what_a_balanced_first_step_is_trained_on_has_to_be_the_same(even, change, key, tmp_path):
    before = tiny_run(even, tmp_path).path
    with pytest.raises(UserError, match=rf"in another way \({re.escape(key)} differs\)"):
        taken_from(before, even | {"memory": MEMORY | change}, tmp_path / "taken")


def test_a_first_step_with_a_balanced_phase_has_the_bits_of_the_full_run(even, tmp_path):
    before = tiny_run(even, tmp_path).path
    changed = even | {"memory": MEMORY | {"refine": [{"use": "keeping"}], "replay": 0.5}, "training": {"lr": 0.2}}
    changed["training"]["first"] = {"lr": 0.1}
    (tmp_path / "full").mkdir()
    full = tiny_run(changed, tmp_path / "full").path
    taken = results(taken_from(before, changed, tmp_path / "taken"))
    assert {key: value for key, value in taken.items() if key != "first_step"} == results(full)


def test_a_plan_of_the_first_step_that_depends_on_their_number_is_compared(even, tmp_path):
    even |= {"phases": [{"use": "even2"}]}
    before = tiny_run(even, tmp_path).path
    with pytest.raises(UserError, match=r"in another way \(phases differs\)"):
        taken_from(before, even | {"scenario": {"first": 2, "increment": 4}}, tmp_path / "taken")
    with pytest.raises(UserError, match=r"tiny\.toml.*: scenario\.increment: the list has 9 classes, 5 too many"):
        taken_from(before, even | {"scenario": {"first": 2, "increment": [9]}}, tmp_path / "other")


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run that has finished a step; name the directory of one that has"):
        taken_from(tmp_path, BASE, tmp_path / "taken")


def test_a_damaged_first_checkpoint_is_refused(tmp_path):
    path = tiny_run(BASE, tmp_path).path
    tensors = path / "checkpoints" / "step-0001" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointRefused, match="damaged"):
        taken_from(path, BASE, tmp_path / "taken")


def test_lwm_takes_the_first_step_of_fine_tuning(finished, tmp_path):
    lwm = BASE | {"penalties": [{"use": "L_D"}, {"use": "L_AD", "weight": 0.1}]}
    assert results(taken_from(finished, lwm, tmp_path / "taken"))["complete"]
