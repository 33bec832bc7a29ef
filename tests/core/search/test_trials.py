"""The command that searches learning rate and trade-offs, and what its trials are."""

import json
from unittest.mock import patch

import pytest
import torch
from helpers.command import lwmfw as command

import lwmfw
from lwmfw import Data, DataSet, Images, Penalty, hookimpl
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.prepare import prepare
from lwmfw.errors import Interrupted, RunFailed, UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.search.decide import Search, trade_offs_of
from lwmfw.search.trials import search_recipe
from lwmfw.testing import tiny_recipe
from lwmfw.testing.tiny import beside_installed

PENALTIES = [{"use": "L_D", "weight": 2.0}, {"use": "L_AD", "weight": 0.5}]
L_D, L_AD = "penalties.L_D.weight", "penalties.L_AD.weight"
TINY = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 20, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
    "penalties": PENALTIES,
}


def loaded(tmp_path, **overrides):
    return load_recipe(tiny_recipe(TINY | overrides, tmp_path))


def run_search(resolved, out, **options):
    said = []
    wanted = {"rates": [0.1, 0.02], "trade_offs": trade_offs_of(resolved, []), "trials": 3} | options
    return search_recipe(resolved, Search(**wanted), out, "cpu", said.append), said


def rows(path):
    """The lines of search.jsonl without what a clock decides."""
    read = [json.loads(line) for line in (path / "search.jsonl").read_text().splitlines()]
    for row in read:
        assert row.pop("seconds") >= 0
    return read


def test_the_command_from_end_to_end(tmp_path):
    recipe = tiny_recipe(TINY | {"observers": [{"use": "console"}]}, tmp_path)
    done = command("search", recipe, "--lr", "0.1,0.02", "--trials", 3, "--validation", 0.2, "--out", "found")
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["step", "lr", "L_D.weight", "L_AD.weight", "A*", "new", "kept", "seen", "trials"]
    assert first.split()[0] == "1"
    assert second.split()[0] == "2"
    lines = done.stderr.splitlines()
    assert lines[0] == "search of tiny, seed 1: steps 1 to 2 of 3, on 0.2 of the training images"
    assert lines[1] == (
        "searched: training.lr of 0.1, 0.02, penalties.L_D.weight from 20, penalties.L_AD.weight from 5 "
        "times 0.5 after each trial that falls short, 3 trials at most"
    )
    assert lines[2] == "recorded in found"
    assert lines[-1] == "run it: lwmfw run found/found.toml"
    trials = rows(tmp_path / "found")
    assert len(lines) == 3 + 2 * len(trials) + 2 + 1  # two lines a trial, a verdict a step, no observer between them
    begun = [line.split(": ")[0] for line in lines if line.startswith("trial ")]
    assert [line.split(" of ")[0] for line in begun] == [f"trial {n}" for n in range(1, len(trials) + 1)]
    assert "best so far" not in lines[3]
    assert lines[5].endswith(f"  best so far {trials[0]['accuracy_new']:.3f}")
    assert list(trials[0]) == ["step", "stage", "lr", "trade_offs", "wanted", "accuracy_new", "accuracy_seen"]
    stages = [(row["step"], row["stage"], row["lr"]) for row in trials[:4]]
    assert stages == [(step, "plasticity", lr) for step in (1, 2) for lr in (0.1, 0.02)]
    assert trials[4]["trade_offs"] == {L_D: 20.0, L_AD: 5.0}
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        ".lock", "owner", "recipe.toml", "env.json", "search.jsonl", "found.toml",
    }  # fmt: skip
    assert command("check", "found/found.toml").returncode == 0
    again = command("search", recipe, "--lr", "0.1", "--out", "found")
    assert (again.returncode, again.stderr) == (2, "found: not empty and no run directory; choose another --out\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.1", "--trade-off", "penalties.L_E.weight"], "did you mean 'penalties.L_D.weight'?"),
        (["--lr", "5000"], "--set training.lr: input should be less than or equal to 1000"),
        ([], "--lr"),
    ],
)
def test_what_is_wrong_exits_2_before_a_directory_is_made(arguments, message, tmp_path):
    recipe = tiny_recipe(TINY, tmp_path)
    done = command("search", recipe, "--out", "found", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [recipe]


def test_a_trade_off_that_grows_beyond_what_its_penalty_takes_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match=r"--set penalties.L_D.weight: .* should be less than or equal to 1000000"):
        run_search(loaded(tmp_path), tmp_path / "found", start=1e6)
    assert not (tmp_path / "found").exists()


def test_by_default_it_is_recorded_beside_the_runs_of_the_recipe(tmp_path):
    run_search(loaded(tmp_path), None, steps=1, rates=[0.1])
    (path,) = (tmp_path / "runs" / "tiny-search").iterdir()
    assert path.name.endswith("-s1")


def test_found_toml_has_what_was_found_and_is_otherwise_the_recipe(tmp_path):
    given = loaded(tmp_path, training={"epochs": 2, "lr": 0.3, "first": {"lr": 0.4, "epochs": 1}})
    found, _ = run_search(given, tmp_path / "found", keep=0.01)
    made = load_recipe(tmp_path / "found" / "found.toml").tables()
    expected = given.tables()
    expected["training"]["lr"] = found[1].accepted.lr
    expected["training"]["first"] = {"epochs": 1, "lr": found[0].accepted.lr}
    expected["penalties"][0]["weight"], expected["penalties"][1]["weight"] = 20.0, 5.0
    assert made == expected
    text = (tmp_path / "found" / "found.toml").read_text()
    assert text.startswith("# Found by `lwmfw search` on 0.1 of the training images, in steps 1 to 2 of 3; ")
    assert "\n# step 2/3  accepted    lr " in text


@pytest.mark.slow
def test_the_recipe_found_runs_to_the_accuracies_of_the_accepted_trials(tmp_path):
    """A trial has the bits of a run: the same penalties, the same steps before it."""
    found, _ = run_search(loaded(tmp_path, training={"epochs": 3}), tmp_path / "found")
    held_out = {"evaluation.validation": 0.1}
    results = lwmfw.run(tmp_path / "found" / "found.toml", held_out, out=tmp_path / "run", device="cpu")
    assert len(found) == 2
    for step, ran in zip(found, results.steps, strict=False):
        assert step.accepted.accuracy_new == ran.accuracy_by_step["cnn"][-1]
        assert step.accepted.accuracy_seen == ran.accuracy["cnn"]
        assert step.accepted.after.results.steps[-1].confusion == ran.confusion


@pytest.mark.slow
def test_the_same_search_twice_gives_the_same_lines(tmp_path):
    for name in ("one", "two"):
        run_search(loaded(tmp_path), tmp_path / name, steps=0)
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert {row["step"] for row in rows(tmp_path / "one")} == {1, 2, 3}
    one, two = ((tmp_path / name / "found.toml").read_text() for name in ("one", "two"))
    assert one == two


def test_the_test_set_is_never_read(tmp_path):
    class Poisoned:
        def __init__(self, options):
            pass

        def load(self):
            rng = torch.Generator().manual_seed(0)
            pixels = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8, generator=rng)
            train = Images(pixels, torch.arange(4).repeat(20))
            useless = Images(pixels[:1], torch.zeros(1).long())  # whoever reads it misses three classes
            return DataSet(train, useless, list("abcd"), [0.5] * 3, [0.3] * 3, padding=1, flip=False)

    catalogue = beside_installed([Data("poisoned", Poisoned)])
    recipe = tiny_recipe({"data": {"use": "poisoned"}, "penalties": PENALTIES}, tmp_path)
    resolved = load_recipe(recipe, catalogue=catalogue)
    with pytest.raises(UserError, match=r"class '.' has no test images"):
        prepare(assemble(resolved), "cpu")  # a run without held-out images reads it
    found, _ = run_search(resolved, tmp_path / "found")
    assert len(found) == 2


def test_a_share_that_the_recipe_holds_out_is_used(tmp_path):
    recipe = tiny_recipe(TINY | {"evaluation": {"validation": 0.25}}, tmp_path)
    said = command("search", recipe, "--lr", "0.1", "--steps", 1, "--out", "found").stderr
    assert "on 0.25 of the training images" in said


def with_penalty(tmp_path, factory, **overrides):
    catalogue = beside_installed([Penalty("probe", factory)])
    recipe = tiny_recipe(TINY | {"penalties": [*PENALTIES, {"use": "probe"}]} | overrides, tmp_path)
    return load_recipe(recipe, catalogue=catalogue)


def test_every_trial_is_a_run_whose_components_start_where_the_accepted_one_stopped(tmp_path):
    calls, starts = [], []

    class Probe:
        def __init__(self, options):
            self.seen, self.total = [], torch.zeros(())

        @hookimpl
        def before_run(self, run):
            calls.append("before_run")
            run.model.extras["memory"] = torch.nn.Linear(2, 1)

        @hookimpl
        def before_step(self, step):
            starts.append((step.index, list(self.seen), float(self.total)))

        @hookimpl
        def compute_penalty(self, model):
            return {"probe": model.extras["memory"](torch.ones(2)).square().sum()}

        @hookimpl
        def after_step(self, step):
            self.seen.append(step.index)
            self.total += step.index

        @hookimpl
        def after_run(self):
            calls.append("after_run")

        def state(self):
            return {"seen": self.seen, "total": self.total}

        def restore(self, state):
            self.seen, self.total = state["seen"], state["total"]

    found, _ = run_search(with_penalty(tmp_path, Probe), tmp_path / "found", steps=3, keep=0.99, trials=2)
    trials = rows(tmp_path / "found")
    full = [row["step"] for row in trials if row["step"] == 1 or row["stage"] == "stability"]
    assert calls == ["before_run", "after_run"] * len(full)  # fine-tuning goes without penalties
    assert starts == [(step, list(range(1, step)), sum(range(step))) for step in full]
    assert found[2].accepted.after.components["probe"]["seen"] == [1, 2, 3]


def test_a_trial_keeps_the_exemplars_that_a_run_keeps_though_no_step_follows_it(tmp_path):
    rate = {"use": "dynamic", "alpha": [0.25]}
    memory = {"budget": "8 exemplars", "select": {"use": "random"}, "rate": rate}
    seen, scenario = {"use": "cross_entropy", "over": "seen"}, {"first": 2, "increment": [1, 3]}
    training = {"epochs": 0, "first": {"epochs": 1}}
    given = loaded(tmp_path, memory=memory, objective=seen, scenario=scenario, penalties=[], training=training)
    found, _ = run_search(given, tmp_path / "found", rates=[0.1], validation=0.2)
    kept = [each.accepted.after.results.steps[-1].exemplars for each in found]
    run = lwmfw.run(tmp_path / "found" / "found.toml", {"evaluation.validation": 0.2}, out=None)
    assert kept == [step.exemplars for step in run.steps[:2]] == [12, 18]


@pytest.mark.slow
def test_a_rate_at_which_the_loss_is_not_finite_is_passed_over(tmp_path):
    resolved = loaded(tmp_path, training={"epochs": 20})
    found, said = run_search(resolved, tmp_path / "found", rates=[1000.0, 0.05], steps=1)
    first = rows(tmp_path / "found")[0]
    assert (first["lr"], first["accuracy_new"], first["accuracy_seen"]) == (1000.0, None, None)
    assert "the loss is not finite" in said[3]
    assert found[0].accepted.lr == 0.05


def test_an_error_in_a_plug_in_fails_the_search(tmp_path):
    class Probe:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self):
            raise ValueError("wrong")

    with pytest.raises(RunFailed, match=r"Probe.compute_penalty raised ValueError: wrong; the run stopped in step 2"):
        run_search(with_penalty(tmp_path, Probe), tmp_path / "found")


def test_an_interrupted_search_says_what_is_left(tmp_path):
    class Probe:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        run_search(with_penalty(tmp_path, Probe), tmp_path / "found")
    assert stopped.value.exit_code == 130
    assert str(stopped.value).endswith(
        "found: interrupted; search.jsonl lists the 4 finished trials, but a search starts anew; choose another --out"
    )
    assert len(rows(tmp_path / "found")) == 4
    with patch("lwmfw.search.trials.loop.train", side_effect=KeyboardInterrupt), pytest.raises(Interrupted) as stopped:
        run_search(with_penalty(tmp_path, Probe), tmp_path / "none")
    assert str(stopped.value).endswith(
        "none: interrupted; no trial is finished, a search starts anew; choose another --out"
    )
    assert not (tmp_path / "none" / "search.jsonl").exists()


def test_a_recipe_without_penalties_is_searched_for_its_rates(tmp_path):
    found, _ = run_search(loaded(tmp_path, penalties=[]), tmp_path / "found")
    assert [step.accepted.trade_offs for step in found] == [{}, {}]
    made = load_recipe(tmp_path / "found" / "found.toml").recipe.training
    assert [made.settings(step).lr for step in (1, 2)] == [step.accepted.lr for step in found]


def test_plug_in_files_of_the_recipe_are_kept_beside_what_was_found(tmp_path):
    from helpers.plugin_files import ANGLES

    (tmp_path / "angles.py").write_text(ANGLES)
    given = loaded(tmp_path, plugins=["angles.py"], penalties=[{"use": "angles"}])
    run_search(given, tmp_path / "found", rates=[0.1], trials=1)
    (tmp_path / "angles.py").unlink()
    assert load_recipe(tmp_path / "found" / "found.toml").tables()["penalties"][0]["weight"] == 10.0
