"""rmm: shares and quotas against what they are to be, runs that keep their number of images, the search of a policy."""

import json
import math
import sys
import tomllib
from itertools import product
from statistics import median

import pytest
import torch
from helpers.months import extend, pictures
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given
from hypothesis import strategies as st

from lwmfw import Observer, UserError, evaluating, hookimpl, open_run
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.rates.rmm._policy import (
    POLICIES,
    action,
    class_losses,
    class_weights,
    given_up,
    left_after,
    shared_out,
)
from lwmfw_plugins.rates.rmm._search import MOST, best_of, climb, moved, policy_of
from lwmfw_plugins.rates.rmm._trials import rate_line, rate_table, task_of

SHARES = st.floats(0, 1, exclude_max=True)
OWN = {"use": "rmm", "policy": "listed", "give_up": [0.5, 0.25], "favour": [0.4]}


def recipe(rate=OWN, budget="12 exemplars"):
    memory = {"budget": budget, "select": {"use": "herding"}, "rate": rate}
    return THREE_STEPS | {"objective": {"use": "cross_entropy", "over": "seen"}, "memory": memory}


# arithmetic


def test_the_shipped_lists_are_those_of_pycil():
    assert POLICIES["icarl"] == ([0.8, 0.8, 0.6, 0.6, 0.6, 0.6], [0, 0, 0.1, 0.1, 0.1, 0])
    assert POLICIES["foster"] == ([0.3, 0.3, 0.3, 0.4, 0.4, 0.4], [0, 0, 0.1, 0.1, 0.1, 0])


def test_the_first_step_has_no_action_and_the_last_one_holds_on():
    assert [action([0.5, 0.2], step) for step in (1, 2, 3, 4)] == [0.0, 0.5, 0.2, 0.2]


@given(images=st.integers(0, 10_000), share=SHARES)
def test_an_image_stays_whatever_is_given_up(images, share):
    count = given_up(images, share)
    assert 0 <= count <= max(0, images - 1)
    assert count in (images - 1, 0) or abs(count - share * images) <= 0.5


@given(counts=st.lists(st.integers(1, 20), min_size=3, max_size=6), share=SHARES, seed=st.integers(0, 1000))
def test_what_is_given_up_is_drawn_from_new_classes_without_repetition(counts, share, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    numbers = {label: given_up(counts[label], share) for label in range(2, len(counts))}
    left = left_after(labels, numbers, torch.Generator().manual_seed(seed))
    assert left.tolist() == sorted(set(left.tolist()))
    assert labels[left].bincount().tolist() == [n - numbers.get(label, 0) for label, n in enumerate(counts)]


def test_other_draws_leave_other_images():
    labels = torch.zeros(50, dtype=torch.int64)
    first, again, other = (
        left_after(labels, {0: 25}, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


@given(total=st.integers(0, 3000), losses=st.lists(st.floats(0, 9), min_size=1, max_size=30), favour=SHARES)
def test_quotas_add_up_to_the_total_and_are_the_shares_to_within_rounding(total, losses, favour):
    weights = class_weights(losses, favour)
    quotas = shared_out(total, weights, [total] * len(weights))
    assert sum(quotas) == total
    each = int(total >= len(weights))
    for quota, weight in zip(quotas, weights, strict=True):
        assert quota >= each
        assert abs(quota - each - (total - each * len(weights)) * weight / sum(weights)) < 1 + 1e-9


@given(
    total=st.integers(0, 400),
    classes=st.lists(st.tuples(st.floats(0.01, 2), st.integers(0, 40)), min_size=1, max_size=20),
)
def test_what_a_class_cannot_use_goes_to_the_others_in_proportion(total, classes):
    weights, most = zip(*classes, strict=True)
    quotas = shared_out(total, weights, most)
    assert sum(quotas) == min(total, sum(most))
    assert all(0 <= quota <= bound for quota, bound in zip(quotas, most, strict=True))
    present = [min(1, bound) for bound in most]
    each = present if total >= sum(present) else [0] * len(most)
    assert all(quota >= one for quota, one in zip(quotas, each, strict=True))
    # one factor of the weights, to within rounding: nobody has more than it says, and who has less has all there is
    told = [*zip(quotas, each, weights, most, strict=True)]
    highest = min(((quota - one + 1) / weight for quota, one, weight, bound in told if quota < bound), default=math.inf)
    assert all((quota - one - 1) / weight <= highest + 1e-9 for quota, one, weight, _ in told)


@given(losses=st.lists(st.floats(0, 9) | st.just(math.nan), min_size=1, max_size=12), favour=SHARES)
def test_classes_above_the_median_loss_have_less_and_all_others_more(losses, favour):
    known = [loss for loss in losses if loss == loss]
    for loss, weight in zip(losses, class_weights(losses, favour), strict=True):
        assert weight == (1 - favour if known and loss > median(known) else 1 + favour)


def test_quotas_of_an_example_by_hand():
    # 505 for five classes, one each: 500 in shares of 1.1, 0.9, 1.1, 0.9, 1.1 of 5.1: 107.84, 88.24, and so on
    weights = class_weights([0.1, 0.9, 0.5, 0.8, 0.2], 0.1)
    assert weights == [1.1, 0.9, 1.1, 0.9, 1.1]
    assert shared_out(505, weights, [505] * 5) == [109, 89, 109, 89, 109]
    assert shared_out(7, [1.0, 1.0, 1.0], [7, 7, 7]) == [3, 2, 2]
    assert shared_out(2, [1.0, 1.5, 0.5], [2, 2, 2]) == [1, 1, 0]
    # one class has 10, one none: 98 and one for each of three; 9 of 98 are cut off, 89 go in shares of 1 and 2 of 3
    assert shared_out(101, [1.0, 1.0, 1.0, 2.0], [10, 0, 200, 200]) == [10, 0, 31, 60]


def test_a_class_has_the_mean_cross_entropy_of_its_images():
    logits, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 0, 3, 2, 2, 0])
    found = class_losses(logits, labels)
    for label in (0, 2, 3):
        rows = [row for row, of in zip(logits.double().tolist(), labels.tolist(), strict=True) if of == label]
        expected = [math.log(sum(map(math.exp, row))) - row[label] for row in rows]
        assert found[label] == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert math.isnan(found[1])


# runs


class Watch:
    """Notes which images a step is trained on, each class's loss before exemplars are selected, and what is kept."""

    seen: dict[int, list[int]]

    def __init__(self, options):
        Watch.seen, Watch.losses, Watch.kept, Watch.planned = {}, {}, {}, {}

    @hookimpl
    def before_step(self, run, step, data):
        Watch.seen[step.index] = data.labels.bincount().tolist()
        Watch.planned[step.index] = [[*run.quota(s, cost=192.0).values()] for s in run.steps]

    @hookimpl
    def before_memory(self, run, step, model, candidates):
        with evaluating(model):
            logits = model.classifier(run.features(candidates))
        Watch.losses[step.index] = class_losses(logits, candidates.labels)

    @hookimpl
    def after_step(self, run, step):
        Watch.kept[step.index] = run.memory.labels.bincount().tolist()


def watched(rate, folder, budget="12 exemplars"):
    components = [Observer("watch", Watch)]
    return tiny_run(recipe(rate, budget) | {"observers": [{"use": "watch"}]}, folder, components=components)


def test_exemplars_and_new_images_are_as_many_as_without(tmp_path):
    result = watched(OWN | {"favour": [0.0]}, tmp_path)
    # 12 and half of 32, 12 and a quarter of 32, 12 as nothing comes
    assert [step.exemplars for step in result.results.steps] == [28, 20, 12]
    assert Watch.seen == {1: [16, 16], 2: [14, 14, 8, 8], 3: [5, 5, 5, 5, 12, 12]}
    assert [sum(Watch.seen[step]) for step in (2, 3)] == [12 + 32] * 2


def test_what_new_classes_have_no_images_for_goes_to_old_ones(tmp_path):
    result = watched(OWN | {"give_up": [0.75], "favour": [0.0]}, tmp_path)
    # 12 and 24 are more than there are: 20 are given up, as 32 are kept; then even quotas are 9, the new classes have 6
    assert [step.exemplars for step in result.results.steps] == [32, 36, 12]
    assert Watch.seen == {1: [16, 16], 2: [16, 16, 6, 6], 3: [12, 12, 6, 6, 4, 4]}
    assert [sum(Watch.seen[step]) for step in (2, 3)] == [12 + 32] * 2


def test_classes_that_are_known_well_have_more_exemplars(tmp_path):
    watched(OWN | {"give_up": [0.25]}, tmp_path)
    for step, held in ((1, [16, 16]), (2, [*Watch.kept[1], 12, 12])):
        assert Watch.kept[step] == shared_out(20, class_weights(Watch.losses[step], 0.4), held)
    low, high = sorted(range(2), key=Watch.losses[1].__getitem__)
    assert Watch.kept[1][low] > Watch.kept[1][high]
    assert Watch.planned == {step: [[10] * 2, [5] * 4, [2] * 6] for step in (1, 2, 3)}  # a plan knows no losses
    assert Watch.kept[3] == [2] * 6


@pytest.mark.parametrize(("budget", "exemplars"), [("2 per class", [20, 16, 12]), ("all", [32, 64, 96])])
def test_budgets_of_another_kind(budget, exemplars, tmp_path):
    result = watched(OWN | {"favour": [0.0]}, tmp_path, budget)
    assert [step.exemplars for step in result.results.steps] == exemplars
    assert sum(Watch.seen[2]) == (4 + 32 if budget != "all" else 64)


def test_a_step_that_was_not_planned_gives_nothing_up(tmp_path):
    pictures(tmp_path / "months", ("ant", "bee", "cat"))
    pictures(tmp_path / "april", ("dog",))
    data = {"use": "folder", "root": str(tmp_path / "months"), "size": 12, "decode": "once"}
    table = recipe(OWN | {"give_up": [0.9]}, "12 exemplars") | {"data": data, "scenario": {"first": 2, "increment": 1}}
    base = tiny_run(table, tmp_path).path
    # 16 exemplars are 4 above the budget: of 8 images of the third class 4 are given up; behind it 12 are kept
    assert open_run(base).exemplars().labels.bincount().tolist() == [4, 4, 4]
    extend(base, tmp_path / "april", tmp_path / "extended", "--train")
    # 0.9 given up would have left one image of the fourth
    assert open_run(tmp_path / "extended").exemplars().labels.bincount().tolist() == [3, 3, 3, 3]


def test_a_budget_in_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"memory\.rate: rmm keeps more than the budget says, and a budget in bytes"):
        tiny_run(recipe(budget="6 kB"), tmp_path)


def test_it_resumes_to_the_same_bits(tmp_path):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = tiny_run(recipe() | {"observers": []}, tmp_path / "whole")
    halves = interrupted(tmp_path / "halves", recipe(), 2)
    for one, other in zip(whole.results.steps, halves.results.steps, strict=True):
        assert (one.confusion, one.exemplars, one.memory_bytes) == (
            other.confusion,
            other.exemplars,
            other.memory_bytes,
        )
    assert whole.run.memory.exemplars == halves.run.memory.exemplars
    for one, other in zip(whole.run.model.parameters(), halves.run.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"policy": "listed"},
            "input should have give_up beside policy = \"listed\", got {'policy': 'listed'}; "
            "list the shares of step 2, 3, ...",
        ),
        (
            {"give_up": [0.5]},
            'input should have no lists beside policy = "icarl", got {\'give_up\': [0.5]}; set policy = "listed"',
        ),
        (
            {"policy": "foster", "favour": [0.1]},
            "input should have no lists beside policy = \"foster\", got {'policy': 'foster', 'favour': [0.1]}; "
            'set policy = "listed"',
        ),
    ],
)
def test_what_contradicts_itself_is_refused(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        tiny_run(recipe({"use": "rmm"} | options), tmp_path)
    assert str(error.value).endswith(f": memory.rate (rmm, from lwmfw 0.1.0): {message}")
    assert "\n" not in str(error.value)


# the search


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
    missing = recipe(rate={"use": "even"}) | {"data": {"use": "folder", "root": str(tmp_path / "none")}}
    out = tmp_path / "found"
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
