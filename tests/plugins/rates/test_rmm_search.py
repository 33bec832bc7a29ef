"""The search for a policy of rmm: what is climbed, the task that is made of a recipe, and its command."""

import json
import sys
import tomllib
from itertools import product

import pytest
from helpers.runs import THREE_STEPS
from hypothesis import given
from hypothesis import strategies as st

from lwmfw import UserError
from lwmfw.testing import tiny_recipe
from lwmfw_plugins.rates.rmm._search import MOST, best_of, climb, moved, policy_of
from lwmfw_plugins.rates.rmm._trials import rate_line, rate_table, task_of

OWN = {"use": "rmm", "policy": "listed", "give_up": [0.5, 0.25], "favour": [0.4]}


def recipe(rate=OWN, budget="12 exemplars"):
    memory = {"budget": budget, "select": {"use": "herding"}, "rate": rate}
    return THREE_STEPS | {"objective": {"use": "cross_entropy", "over": "seen"}, "memory": memory}


def hill(top):
    """A reward that is largest at a policy, and the list of those it was asked of."""
    asked = []

    def reward(tenths):
        asked.append(tenths)
        return -float(sum((t - best) ** 2 for t, best in zip(tenths, top, strict=True)))

    return reward, asked


@given(top=st.tuples(*[st.integers(0, most) for most in MOST for _ in range(2)]))
def test_a_hill_is_climbed_to_its_top(top):
    reward, asked = hill(top)
    tried = climb(reward, 2, 10_000)
    assert best_of(tried) == top
    assert asked == list(tried)
    assert len(asked) == len(set(asked)) < 150  # of 3600
    assert all(0 <= t <= most for tenths in asked for t, most in zip(tenths, (9, 9, 5, 5), strict=True))


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_no_more_is_tried_than_may_be_and_the_best_of_it_is_the_answer(trials):
    reward, asked = hill((6, 6, 1, 0))
    tried = climb(reward, 2, trials)
    assert len(asked) == trials
    assert tried[best_of(tried)] == max(tried.values())
    assert asked[0] == (0, 0, 0, 0)  # the rate even comes first
    assert asked[1:3] == [(3, 3, 0, 0), (6, 6, 0, 0)][: trials - 1]


def test_where_nothing_matters_nothing_is_given_up():
    tried = climb(lambda tenths: 0.5, 1, 10_000)
    assert best_of(tried) == (0, 0)
    assert {moved((0, 0), range(i, i + 1), by) for i, by in product((0, 1), (1, 3))} <= tried.keys()


def test_the_line_to_paste_is_a_rate():
    policy = policy_of((3, 6, 0, 1))
    assert policy == ([0.3, 0.6], [0.0, 0.1])
    line = 'rate = { use = "rmm", policy = "listed", give_up = [0.3, 0.6], favour = [0.0, 0.1] }'
    assert rate_line(policy) == line
    assert tomllib.loads(line) == {"rate": rate_table(policy)}


def tables(first=50, increment=10, **changed):
    return {
        "scenario": {"first": first, "increment": increment},
        "training": {"epochs": 160, "first": {}},
        "evaluation": {"validation": 0.0},
        "readouts": [{"use": "cnn", "as": "cnn"}, {"use": "nme", "as": "nme"}],
        "phases": [],
        "memory": {"budget": "20 per class"},
    } | changed


@pytest.mark.parametrize(
    ("first", "increment", "classes"),
    [
        (50, 10, [25, 5, 50]),
        (50, 5, [25, 2, 49]),  # what is left over is left out
        (50, 1, [25, 1, 50]),
        (4, 2, [2, 1, 4]),
        (2, 2, [1, 1, 2]),
        (3, 20, [2, 1, 3]),
        (10, [4, 1], [5, 2, 9]),
    ],
)
def test_a_task_is_the_first_step_in_steps(first, increment, classes):
    task = task_of(tables(first, increment))
    keys = ("scenario.first", "scenario.increment", "scenario.classes")
    assert [task.settings[key] for key in keys] == classes
    assert task.steps == (classes[2] - classes[0]) / classes[1]


def test_a_task_holds_images_out_and_is_shorter():
    task = task_of(tables())
    assert (task.settings["training.epochs"], task.settings["evaluation.validation"], task.readout) == (40, 0.1, "cnn")
    task = task_of(tables(evaluation={"validation": 0.2}), epochs=3, readout="nme")
    assert (task.settings["training.epochs"], task.settings["evaluation.validation"], task.readout) == (3, 0.2, "nme")


@pytest.mark.parametrize(
    ("whole", "epochs", "cut"),
    [
        ((160, 200, 20), 0, (40, 50, 5)),
        ((160, 1, 5), 0, (40, 1, 2)),
        ((2, 3, 0), 0, (1, 2, 0)),
        ((160, 200, 20), 80, (80, 100, 10)),
    ],
)
def test_the_first_step_and_further_phases_are_shorter_too(whole, epochs, cut):
    main, first, more = whole
    phases = [{"use": "balanced", "epochs": more, "lr": 0.05}, {"use": "other"}]
    training = {"epochs": main, "first": {"epochs": first, "lr": 1.0}}
    task = task_of(tables(training=training, phases=phases), epochs=epochs)
    assert task.settings["training.epochs"] == cut[0]
    assert task.settings["training.first"] == {"epochs": cut[1], "lr": 1.0}
    assert task.settings["phases"] == [phases[0] | {"epochs": cut[2]}, {"use": "other"}]


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (
            {"memory": {"budget": "6 MB"}},
            {},
            'memory.budget: "6 MB" is a limit that rmm would exceed; state it in exemplars',
        ),
        (
            {"memory": {"budget": "all"}},
            {},
            'memory.budget: "all" leaves nothing to share out; state it in exemplars',
        ),
        ({"first": 1}, {}, "scenario.first: 1 classes cannot be learned in steps; set it to 2 or more"),
        (
            {"increment": 0},
            {},
            "scenario.increment: no step comes after the first, so nothing is given up; say how many",
        ),
        ({}, {"readout": "nmf"}, "--readout nmf: no such read-out in the recipe; did you mean 'nme'?"),
        ({}, {"readout": "x"}, "--readout x: no such read-out in the recipe; choose of cnn, nme"),
    ],
)
def test_a_recipe_that_makes_no_task_is_refused(changed, options, message):
    with pytest.raises(UserError) as error:
        task_of(tables(**changed), **options)
    assert str(error.value) == message


def test_a_recipe_without_memory_is_refused():
    without = tables()
    del without["memory"]
    with pytest.raises(UserError, match=r"^memory: there is none, so nothing to share out; add \[memory\]$"):
        task_of(without)


def command(monkeypatch, *arguments):
    """Run the search in this process; returns its exit code."""
    from lwmfw_plugins.rates.rmm.__main__ import main

    monkeypatch.setattr(sys, "argv", ["rmm", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


def test_a_folder_in_use_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "note").write_text("")
    assert command(monkeypatch, tiny_recipe(recipe(), tmp_path), "--out", tmp_path) == 2
    assert capsys.readouterr() == ("", f"{tmp_path}: not empty; choose another --out\n")


def test_a_start_that_fails_leaves_its_folder_free(tmp_path, monkeypatch, capsys):
    steps = {"scenario": {"first": 4, "increment": 2}}
    missing = recipe(rate={"use": "even"}) | steps | {"data": {"use": "folder", "root": str(tmp_path / "none")}}
    out = tmp_path / "found"
    (tmp_path / "random.py").write_text("raise SystemExit('no module is taken from the current folder')")
    assert command(monkeypatch, tiny_recipe(missing, tmp_path), "--out", out, "--device", "cpu") == 2
    assert "none: cannot be read (No such file or directory); set data.root" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_the_search_from_end_to_end(tmp_path, monkeypatch, capsys):
    overrides = recipe(rate={"use": "even"}) | {"scenario": {"first": 4, "increment": 2}}
    out = tmp_path / "found"
    path = tiny_recipe(overrides, tmp_path)
    arguments = (path, "--trials", 3, "--out", out, "--device", "cpu", "--set", "evaluation.validation=0.25")
    assert command(monkeypatch, *arguments) == 0
    line, said = capsys.readouterr()
    first, *trials = said.splitlines()
    assert first == f"search of tiny, seed 1: 2 classes, then 2 steps of 1, 3 trials at most, recorded in {out}"
    assert [trial.split("  cnn ")[0] for trial in trials[:2]] == [
        "trial 1    give_up 0.0 0.0  favour 0.0 0.0",
        "trial 2    give_up 0.3 0.3  favour 0.0 0.0",
    ]
    recorded = json.loads((out / "policy.json").read_text())
    assert len(recorded["trials"]) == len(trials) == 3
    best = max(recorded["trials"], key=lambda trial: trial["reward"])
    assert recorded["rate"] == {"use": "rmm", "policy": "listed"} | {key: best[key] for key in ("give_up", "favour")}
    assert line == rate_line(policy_of((*(round(10 * t) for t in (*best["give_up"], *best["favour"])),))) + "\n"
    for number in ("01", "02", "03"):
        results = json.loads((out / "trials" / number / "results.json").read_text())
        assert results["average_incremental_accuracy"]["cnn"] == recorded["trials"][int(number) - 1]["reward"]
        assert ("first_step" in results) == (number != "01")
