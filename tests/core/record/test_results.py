"""Measures on numbers worked out by hand, and tables of results."""

import csv
import io
import json
import os
import re

import pytest
from helpers.command import lwmfw
from helpers.results import THREE, named, results_of

from lwmfw import UserError
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import (
    Results,
    accuracy,
    accuracy_csv,
    average,
    backward_transfer,
    first_step_forgetting,
    forgetting,
    forgettings,
)
from lwmfw.record.tables import comparison_rows, result_rows


def test_accuracy_is_the_share_of_a_groups_images_on_the_diagonal():
    confusion = [[8, 2, 0], [1, 9, 0], [15, 0, 5]]
    assert accuracy(confusion, range(3)) == (8 + 9 + 5) / 40  # of images, not the mean over classes
    assert accuracy(confusion, range(2)) == (8 + 9) / 20
    assert accuracy(confusion, range(2, 3)) == 5 / 20


def test_average_incremental_accuracy_counts_the_first_step():
    # accuracies on all seen classes: 0.9, (0.6 + 0.8) / 2 = 0.7, (0.7 + 0.5 + 0.9) / 3 = 0.7
    expected = (0.9 + 0.7 + 0.7) / 3
    assert results_of(THREE).average_incremental_accuracy == {"cnn": pytest.approx(expected)}
    assert average([0.9, 0.7, 0.7]) == pytest.approx(expected)
    assert results_of(THREE).last_accuracy == {"cnn": pytest.approx(0.7)}


def test_forgetting_is_the_mean_drop_from_the_best_earlier_accuracy():
    # step 1: max(0.9, 0.6) - 0.7 = 0.2; step 2: 0.8 - 0.5 = 0.3; step 3 has no past
    assert forgetting(THREE) == pytest.approx((0.2 + 0.3) / 2)
    # the best is not always the first: max(0.5, 0.8) - 0.6 = 0.2; 0.9 - 0.9 = 0
    assert forgetting([[0.5], [0.8, 0.9], [0.6, 0.9, 1.0]]) == pytest.approx((0.2 + 0.0) / 2)
    # the end itself is not among the earlier steps, so that what got better counts as negative: 0.5 - 0.6
    assert forgetting([[0.5], [0.6, 1.0]]) == pytest.approx(-0.1)
    assert results_of(THREE).forgetting == {"cnn": pytest.approx(0.25)}


def test_one_step_forgets_nothing_that_could_be_measured():
    assert forgetting([[0.9]]) is None
    assert forgetting([]) is None
    assert results_of([[0.9]]).forgetting == {"cnn": None}


def test_first_step_forgetting_is_the_fall_of_the_first_classes_since_their_step():
    assert first_step_forgetting([[0.5], [0.8, 0.9], [0.3, 0.9, 1.0]]) == pytest.approx(0.2)
    assert results_of([[0.9]]).first_step_forgetting == {"cnn": None}
    assert results_of(THREE).to_json()["first_step_forgetting"] == {"cnn": pytest.approx(THREE[0][0] - THREE[-1][0])}


def test_backward_transfer_is_the_mean_change_since_a_steps_classes_were_learned():
    # step 1: 0.7 - 0.9; step 2: 0.5 - 0.8; step 3 has just been learned
    assert backward_transfer(THREE) == pytest.approx((-0.2 - 0.3) / 2)
    # what was better in between says nothing here, unlike in forgetting, and what got better counts: 0.6 - 0.5
    assert backward_transfer([[0.5], [0.8, 0.9], [0.6, 0.9, 1.0]]) == pytest.approx((0.1 + 0.0) / 2)
    assert backward_transfer([[0.9]]) is backward_transfer([]) is None
    assert backward_transfer([[None], [0.6, 0.8], [0.7, 0.5, 0.9]]) == pytest.approx(-0.3)
    assert results_of(THREE).to_json()["backward_transfer"] == {"cnn": pytest.approx(-0.25)}


def test_results_before_the_first_step_are_empty():
    empty = results_of([])
    assert empty.average_incremental_accuracy == empty.last_accuracy == empty.forgetting == {}


@pytest.mark.parametrize("by_step", [[], [[0.9]], THREE])
def test_results_survive_json(by_step):
    results = results_of(by_step, who=("cnn", "nme"), complete=False)
    text = json.dumps(results.to_json(), allow_nan=False)
    assert Results.from_json(json.loads(text)) == results
    assert json.loads(text)["schema"] == 1


def test_results_json_has_a_line_for_each_step(tmp_path):
    for by_step in ([], [[0.9]], THREE):
        results = results_of(by_step, who=("cnn", "nme"))
        text = results.to_text()
        assert json.loads(text) == json.loads(json.dumps(results.to_json()))
        assert len([line for line in text.splitlines() if line.startswith('  {"step": ')]) == len(by_step)


def test_results_that_are_copied_stay_as_they_are():
    results = results_of(THREE)
    kept = results.copied()
    results.steps[0].extra["more"] = 1
    results.steps[1].confusion = {}
    results.steps.append(results.steps[0])
    results.files["a"] = "b"
    assert kept == results_of(THREE)


def test_forgetting_after_each_step_is_that_of_the_steps_so_far():
    by_step = [[0.9], [None, 0.8], [0.5, 0.9, None], [0.7, None, 0.2, 0.4], [0.1, 0.2, 0.3, None, 0.5]]
    after = forgettings(by_step)
    assert after[:2] == [None, None]
    assert after[2] == pytest.approx(((0.9 - 0.5) + (0.8 - 0.9)) / 2)
    assert after[3] == pytest.approx(0.9 - 0.7)
    assert after[4] == pytest.approx(((0.9 - 0.1) + (0.9 - 0.2) + (0.2 - 0.3)) / 3)
    assert after == [forgetting(by_step[: n + 1]) for n in range(5)]


def test_results_are_read_from_a_run_directory_or_a_file(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results_of(THREE).to_json()))
    assert RecordedRun(tmp_path).results == RecordedRun(tmp_path / "results.json").results == results_of(THREE)


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"steps": [{}]}, {"steps": [{"step": 1}]}, {"steps": 3}, {"steps": None}],
    ids=lambda change: json.dumps(change),
)
def test_results_of_another_format_are_refused(change, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results_of(THREE).to_json() | change))
    with pytest.raises(UserError, match=r"results\.json: not the results of a run"):
        _ = RecordedRun(tmp_path).results


def edited(index, **values):
    """Results in which someone has changed a step."""
    plain = results_of(THREE).to_json()
    plain["steps"][index].update(values)
    return plain


DATA = {
    "sha256": "ab",
    "class_names": ["a", "b"],
    "train": {"images": [4, 4], "sha256": ["c", "d"]},
    "test": {"images": [2, 2], "sha256": ["e", "f"]},
}
NO_DATA = (
    {"sha256": 5}, {"class_names": ["a", 7]}, {"class_names": "ab"}, {"class_names": ["a"]}, {"train": []},
    {"test": {}}, {"test": {"images": [2], "sha256": ["e", "f"]}}, {"train": {"images": [4, 10**400], "sha256": []}},
)  # fmt: skip
SOURCE = {"data": {"use": "folder", "root": "/pictures", "size": 8}, "validation": 0.0, "seed": 1, "images": "ab"}
NO_SOURCES = (
    {"data": 5}, {"data": {}}, {"data": {"use": "folder", "root": "\0"}}, {"validation": "x"}, {"seed": None},
    {"data": None, "retracted": "/pictures"},
)  # fmt: skip


def test_what_results_state_of_data_is_read_whatever_the_names_and_whatever_comes_later():
    later = {
        "data": DATA | {"class_names": ["a", os.fsdecode(b"caf\xe9")], "more": 1},
        "sources": [SOURCE, {"retracted": "/more"}],
    }
    said = {"statistics": "a", "backbone": "b", "exact": True, "lambda": 0.1}
    plain = edited(2, readouts={"cnn": said, "som": {"statistics": "c", "backbone": "b"}}) | later
    assert Results.from_json(plain).to_json() == plain


@pytest.mark.parametrize(
    "plain",
    [
        edited(0, accuracy=[1]),
        edited(0, accuracy={"cnn": "x"}),
        edited(0, accuracy={"nme": 0.1}),
        edited(2, accuracy={}),
        edited(1, accuracy_by_step={"cnn": []}),
        edited(1, accuracy_by_step={"cnn": [0.1, "x"]}),
        edited(1, accuracy_by_step={}),
        edited(1, step=3),
        edited(1, seen="x"),
        edited(1, train_seconds=float("inf")),
        edited(1, accuracy={"cnn": float("nan")}),
        edited(1, more=1),
        edited(1, seen=-1),
        edited(1, parameters=10**400),
        edited(1, seen=10**18),
        edited(1, confusion={"cnn": [[10**400]]}),
        edited(1, readout_bytes={"cnn": 10**400}),
        edited(1, accuracy={"cnn": 1e308}),
        edited(1, accuracy_by_step={"cnn": [0.5, -0.1]}),
        edited(1, train_seconds=1e308),
        edited(1, train_seconds=10**400),
        edited(1, readouts={"cnn": {"backbone": "a"}}),
        edited(1, readouts={"cnn": {"backbone": "a", "statistics": "b", "exact": "no"}}),
        results_of(THREE).to_json() | {"recipe": [5]},
        results_of(THREE).to_json() | {"classes_order": [10**400]},
        *(results_of(THREE).to_json() | {"data": DATA | change} for change in NO_DATA),
        results_of(THREE).to_json() | {"data": {"class_names": ["a", "b"]}},
        *(results_of(THREE).to_json() | {"sources": [SOURCE | change]} for change in NO_SOURCES),
        results_of(THREE).to_json() | {"sources": [{"data": {"use": "folder"}}]},
        results_of(THREE).to_json() | {"class_names": 3},
        results_of(THREE).to_json() | {"seed": "x"},
        [],
    ],
    ids=lambda plain: "",
)
@pytest.mark.parametrize("form", ["table", "csv"])
def test_results_that_were_edited_are_refused(plain, form, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(plain))
    done = lwmfw("compare", tmp_path / "results.json", "--format", form)
    assert done.returncode == 2, done.stderr
    assert re.search(r"results\.json: not the results of a run \(\w+\); name another\n$", done.stderr)


SO_FAR = ["average", "forgetting", "backward_transfer", "task_aware", "new_classes"]


def test_accuracy_csv_has_the_measures_so_far_beside_the_accuracy_on_all_classes():
    rows = list(csv.DictReader(io.StringIO(accuracy_csv({"": results_of(THREE)}))))
    told = {row["step"]: [row[key] for key in SO_FAR] for row in rows if row["classes_of"] == "all"}
    assert told == {
        "1": ["0.900000", "", "", "", "0.900000"],
        "2": ["0.800000", "0.300000", "-0.300000", "", "0.850000"],
        "3": ["0.766667", "0.250000", "-0.250000", "", "0.866667"],
    }
    assert all(row[key] == "" for row in rows for key in SO_FAR if row["classes_of"] != "all")


def test_accuracy_csv_is_tidy():
    runs = [results_of(THREE, who=("cnn", "nme")), results_of([[1.0]], recipe="other", seed=2)]
    rows = list(csv.DictReader(io.StringIO(accuracy_csv({str(n): run for n, run in enumerate(runs, 1)}))))
    plain = ["run", "recipe", "seed", "step", "seen", "classifier", "classes_of", "accuracy"]
    assert list(rows[0]) == [*plain, *SO_FAR]
    # per step and classifier one row for all classes and one for each step so far: (2 + 3 + 4) * 2, and 2
    assert len(rows) == (2 + 3 + 4) * 2 + 2
    keys = [tuple(row[k] for k in ("recipe", "seed", "step", "classifier", "classes_of")) for row in rows]
    assert len(set(keys)) == len(keys)
    assert not any(row[key] in ("", None) for row in rows for key in rows[0] if key not in SO_FAR)
    table = {key: float(row["accuracy"]) for key, row in zip(keys, rows, strict=True)}
    assert table["lwm", "1", "3", "nme", "step 2"] == 0.5
    assert table["lwm", "1", "2", "cnn", "all"] == pytest.approx(0.7)
    assert table["other", "2", "1", "cnn", "all"] == 1.0


def test_variants_of_a_recipe_are_told_apart_and_named_by_what_differs():
    runs = [results_of([[0.5]], seed=1), results_of([[0.7]], seed=1), results_of([[0.9]], seed=2)]
    settings = [{"lr": "0.1", "weight": "1"}, {"lr": "0.1", "weight": "2"}, {"lr": "0.1", "weight": "2"}]
    _, rows = comparison_rows(named(*runs, settings=settings))
    assert [row[:4] for row in rows] == [
        ["lwm weight=1", "cnn", "1", "0.500"],
        ["lwm weight=2", "cnn", "2", "0.800 ± 0.141"],
    ]


def test_one_run_twice_is_no_second_seed():
    with pytest.raises(UserError, match=r"run2: the same recipe and seed as run1 \(lwm\); name one of them"):
        comparison_rows(named(results_of([[0.5]]), results_of([[0.5]])))


MEASURED = ["recipe", "read-out", "seeds", "average", "last", "forgetting"]
FURTHER = ["BWT", "task-aware", "new classes"]
DIFFERENCES = ["average: difference", "last: difference"]
COSTS = ["memory", "parameters", "total", "seconds", "epochs"]


def test_a_comparison_averages_over_seeds():
    runs = [
        results_of([[0.8], [0.4, 0.6]], seed=1),  # average (0.8 + 0.5) / 2 = 0.65, last 0.5, forgetting 0.4
        results_of([[0.6], [0.4, 0.8]], seed=2),  # average (0.6 + 0.6) / 2 = 0.60, last 0.6, forgetting 0.2
        results_of([[0.5], [0.5, 0.5]], recipe="other", complete=False),
    ]
    header, rows = comparison_rows(named(*runs))
    assert header == [*MEASURED, *DIFFERENCES, "step 1", "step 2", *FURTHER, *COSTS]
    # the deviation of two values is their distance over the root of 2: 0.05, 0.1, 0.2, 0.2, 0.1
    measures, steps = ["0.625 ± 0.035", "0.550 ± 0.071", "0.300 ± 0.141"], ["0.700 ± 0.141", "0.550 ± 0.071"]
    # learned at 0.8 and 0.6, and at 0.6 and 0.8: 0.7 twice
    further = ["-0.300 ± 0.141", "", "0.700 ± 0.000"]
    assert rows[0][:13] == ["lwm", "cnn", "2", *measures, "baseline", "baseline", *steps, *further]
    assert rows[1][:6] == ["other (unfinished, 2 steps)", "cnn", "1", "0.500", "0.500", "0.000"]


def test_a_comparison_says_what_each_costs_at_the_end():
    runs = [results_of([[0.8], [0.4, 0.6]], seed=seed) for seed in (1, 2)]
    for run, seconds in zip(runs, (1.5, 2.5), strict=True):
        for step in run.steps:
            step.train_seconds, step.readout_bytes, step.memory_bytes = seconds, {"cnn": 500}, 2000
            step.accuracy_task_aware = {"cnn": 0.9}
        run.steps[0].epochs, run.steps[1].epochs = 160, 180  # with a phase of 20
        run.steps[-1].parameters, run.steps[-1].model_bytes = 1000, 4000
        run.steps[0].memory_bytes = 3000  # as a memory that grows has between steps
    header, (row,) = comparison_rows(named(*runs))
    told = dict(zip(header, row, strict=True))
    assert {name: told[name] for name in COSTS} == {
        "memory": "3.0 kB", "parameters": "1000", "total": "6.5 kB", "seconds": "4", "epochs": "340",
    }  # fmt: skip
    assert told["task-aware"] == "0.900 ± 0.000"


def test_a_comparison_has_a_row_for_each_classifier():
    _, rows = comparison_rows(named(results_of(THREE, who=("cnn", "nme"))))
    assert [row[:3] for row in rows] == [["lwm", "cnn", "1"], ["lwm", "nme", "1"]]


def test_a_comparison_without_forgetting_leaves_its_place_empty():
    _, rows = comparison_rows(named(results_of([[0.5]])))
    assert rows[0][:6] == ["lwm", "cnn", "1", "0.500", "0.500", ""]
    assert comparison_rows([]) == ([*MEASURED, *FURTHER, *COSTS], [])


def test_the_table_of_a_run_has_its_steps_and_measures():
    header, rows = result_rows(results_of(THREE))
    assert header == ["accuracy", *MEASURED[3:], "step 1", "step 2", "step 3", *FURTHER]
    assert rows == [["cnn", "0.767", "0.700", "0.250", "0.900", "0.700", "0.700", "-0.250", "", "0.867"]]
    assert result_rows(results_of([[0.9]]))[1] == [["cnn", "0.900", "0.900", "", "0.900", "", "", "0.900"]]


def test_results_of_other_data_are_another_row_even_without_settings():
    ours, theirs = results_of(THREE), results_of(THREE, seed=2)
    theirs.class_names = ["apple", *theirs.class_names[1:]]
    _, rows = comparison_rows(named(ours, theirs))
    assert [row[2] for row in rows] == ["1", "1"]
    assert len({row[0] for row in rows}) == 2
    assert "classes from apple" in rows[1][0]


def test_a_component_that_only_some_have_is_named_without_its_options():
    runs = [results_of([[0.5]], seed=seed) for seed in (1, 2, 3, 4)]
    bare = {"lr": "0.1", "backbone.use": '"resnet20"', "backbone.width": "16"}
    with_it = bare | {"penalties.L_AD.use": '"L_AD"', "penalties.L_AD.as": '"L_AD"', "penalties.L_AD.stage": "-1"}
    settings = [
        bare,
        with_it | {"penalties.L_AD.weight": "1.0"},
        with_it | {"penalties.L_AD.weight": "0.1"},
        {"lr": "0.1", "backbone.use": '"der"', "backbone.blocks": "3", "backbone.begin": '"previous"'},
    ]
    _, rows = comparison_rows(named(*runs, settings=settings))
    assert [row[0] for row in rows] == [
        'lwm backbone.use="resnet20"',
        'lwm backbone.use="resnet20" penalties.L_AD penalties.L_AD.weight=1.0',
        'lwm backbone.use="resnet20" penalties.L_AD penalties.L_AD.weight=0.1',
        'lwm backbone.use="der"',
    ]


def test_steps_of_other_sizes_are_no_other_seed():
    two_and_two, four = results_of([[0.8], [0.4, 0.6]], seed=1), results_of([[0.8], [0.4, 0.6]], seed=2)
    four.steps = four.steps[1:]
    four.steps[0].new_classes = [0, 1, 2, 3]
    _, rows = comparison_rows(named(two_and_two, four))
    assert [row[0] for row in rows] == ["lwm on classes from class 0, 2 + 2", "lwm on classes from class 0, 4"]


def test_a_classifier_that_one_run_lacks_leaves_its_place_empty():
    runs = [results_of(THREE, seed=1, who=("cnn", "nme")), results_of(THREE, seed=2)]
    _, rows = comparison_rows(named(*runs))
    assert [(row[1], row[3]) for row in rows] == [("cnn", "0.767 ± 0.000"), ("nme", "0.767")]
