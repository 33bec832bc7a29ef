"""Runs side by side: which of them are seeds of one variant, and what is blank."""

import json
import re

import pytest
from helpers.plugin_files import ANGLES
from helpers.results import THREE, named, results_of

from lwmfw.errors import UserError
from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe
from lwmfw.record.compare import compare, plain_comparison
from lwmfw.record.reading import RecordedRun, digest_of, settings_of
from lwmfw.record.results import Results, accuracy_csv
from lwmfw.record.tables import comparison_rows, result_rows
from lwmfw.testing import tiny_run


def test_results_alone_are_told_apart_and_grouped_by_the_digest_of_their_settings():
    runs = [results_of(THREE, seed=seed) for seed in (1, 2, 3, 4)]
    for run, digest in zip(runs, ["a" * 64, "a" * 64, "b" * 64, ""], strict=True):
        run.settings = digest
    _, rows = comparison_rows(named(*runs))
    assert [(row[0], row[2]) for row in rows] == [
        ("lwm settings=aaaaaaaa", "2"), ("lwm settings=bbbbbbbb", "1"), ("lwm settings=unknown", "1"),
    ]  # fmt: skip
    assert [row[0] for row in comparison_rows(named(*runs[:2]))[1]] == ["lwm"], "nothing is to be told apart"


def test_results_that_left_their_run_are_seeds_of_the_runs_that_have_its_settings():
    runs = [results_of(THREE, seed=seed) for seed in (1, 2, 3)]
    settings = [{}, {"lr": "0.1"}, {"lr": "0.2"}]
    runs[0].settings = digest_of(settings[1])
    _, rows = comparison_rows(named(*runs, settings=settings))
    assert [(row[0], row[2]) for row in rows] == [("lwm lr=0.1", "2"), ("lwm lr=0.2", "1")]


def test_results_have_the_digest_of_what_their_run_is_made_of(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)  # a plug-in file is named by another path in the directory
    run = tiny_run({"plugins": ["angles.py"], "penalties": [{"use": "angles"}]}, tmp_path)
    alone = tmp_path / "alone.json"
    alone.write_bytes((run.path / "results.json").read_bytes())
    recorded = [RecordedRun(path) for path in (run.path, run.path / "results.json", alone)]
    assert len({each.settings_digest for each in recorded}) == 1
    assert [len(each.settings_digest) for each in recorded] == [64] * 3
    assert recorded[0].settings == recorded[1].settings != recorded[2].settings == {}


def recorded(folder, *, weights="a", penalty="b", observer="c", seed=1):
    """A run in a folder, with initial weights and plug-in files of such contents."""
    run = RecordedRun(folder)
    run.results = results_of(THREE, seed=seed)
    run.results.files = {"backbone.weights": weights * 64}
    files = {"drift": ("penalty.py", penalty), "observer.drift": ("watch.py", observer), "tell": ("watch.py", observer)}
    run.results.providers |= {name: f"{file} sha256:{content * 64}" for name, (file, content) in files.items()}
    run.tables = {
        "plugins": [f"{folder}/plugins/{file}#sha256:{content * 64}" for file, content in dict(files.values()).items()],
        "backbone": {"use": "own", "weights": f"{folder}/w.safetensors"},
        "penalties": [{"use": "drift"}],
        "observers": [{"use": "drift"}, {"use": "watch.py/tell"}],
    }
    return run


def test_copies_of_files_and_the_files_of_observers_tell_no_runs_apart():
    runs = [recorded("/here"), recorded("/there", seed=2), recorded("/here", observer="d", seed=3)]
    assert len({run.settings_digest for run in runs}) == 1
    assert [(row[0], row[2]) for row in comparison_rows(runs)[1]] == [("lwm", "3")]


def test_files_of_other_contents_tell_runs_apart_by_the_beginnings_of_their_digests():
    runs = [recorded("/here"), recorded("/here", weights="d"), recorded("/here", penalty="e")]
    assert len({run.settings_digest for run in runs}) == 3
    assert [row[0] for row in comparison_rows(runs)[1]] == [
        'lwm plugins=["penalty.py#sha256:bbbbbbbb"] backbone.weights=sha256:aaaaaaaa',
        'lwm plugins=["penalty.py#sha256:bbbbbbbb"] backbone.weights=sha256:dddddddd',
        'lwm plugins=["penalty.py#sha256:eeeeeeee"] backbone.weights=sha256:aaaaaaaa',
    ]


def test_a_classifier_that_one_step_lacks_leaves_its_place_empty():
    plain = results_of(THREE, who=("cnn", "nme")).to_json()
    for table in ("accuracy", "accuracy_by_step"):
        del plain["steps"][1][table]["nme"]
    results = Results.from_json(plain)
    header, rows = result_rows(results)
    assert dict(zip(header, rows[1], strict=True)) == {
        "accuracy": "nme", "average": "0.800", "last": "0.700", "forgetting": "0.200",
        "step 1": "0.900", "step 2": "", "step 3": "0.700", "BWT": "-0.200", "task-aware": "", "new classes": "0.900",
    }  # fmt: skip
    assert [row[1:4] for row in comparison_rows(named(results))[1]] == [
        ["cnn", "1", "0.767"],
        ["nme", "1", "0.800"],
    ]
    del plain["steps"][2]["accuracy"]["nme"], plain["steps"][2]["accuracy_by_step"]["nme"]
    assert result_rows(Results.from_json(plain))[1][1][:4] == ["nme", "0.900", "", ""]
    assert "nme" in accuracy_csv({"": Results.from_json(plain)})


def test_a_run_without_steps_leaves_its_places_empty():
    begun = results_of([], complete=False, recipe="begun")
    _, rows = comparison_rows(named(begun, results_of(THREE)), "lwm")
    assert rows[0] == ["begun (unfinished, 0 steps)", "", "1", *[""] * (len(rows[0]) - 3)]
    assert rows[1][:2] == ["lwm", "cnn"]
    assert result_rows(begun)[1] == []


def test_runs_that_have_not_come_as_far_are_no_seeds_of_one_variant():
    runs = [results_of(THREE[:steps], seed=seed, complete=False) for seed, steps in ((1, 1), (2, 2), (3, 2))]
    for run in runs:
        run.class_names = [f"class {c}" for c in range(6)]
    told = [(row[0], row[2]) for row in comparison_rows(named(*runs))[1]]
    assert told == [("lwm (unfinished, 1 step)", "1"), ("lwm (unfinished, 2 steps)", "2")]


def test_many_steps_of_one_size_are_counted():
    ten, two = results_of([[0.8] * n for n in range(1, 11)], seed=1), results_of([[0.8], [0.4, 0.6]], seed=2)
    ten.steps[0].new_classes = list(range(50))
    assert [row[0] for row in comparison_rows(named(ten, two))[1]] == [
        "lwm on classes from class 0, 50 + 9 x 2",
        "lwm on classes from class 0, 2 + 2",
    ]


def accuracies(**of):
    """Runs of one step, name -> accuracies of seeds 1, 2, ..."""
    return named(*(results_of([[v]], recipe=name, seed=n) for name, many in of.items() for n, v in enumerate(many, 1)))


def differences(runs, baseline=""):
    return {row.variant: str(row.differences.get("last", "baseline")) for row in compare(runs, baseline).rows}


def test_differences_are_of_pairs_of_one_seed_and_to_the_first_variant():
    told = differences(accuracies(a=[0.3, 0.6, 0.9], b=[0.4, 0.7, 1.0], c=[0.5, 0.3, 0.9], d=[0.5]))
    assert told == {
        "a": "baseline",
        "b": "+0.100 [+0.100, +0.100] n=3",
        "c": "-0.033 [-0.658, +0.592] n=3, may be 0",  # of 0.2, -0.3, 0.0: deviation 0.2517, x 4.303 / sqrt(3)
        "d": "+0.200, n=1",
    }


@pytest.mark.parametrize("baseline", ["b", "run3", "./run3/"])
def test_a_baseline_goes_by_its_name_or_a_run(baseline):
    assert differences(accuracies(a=[0.3, 0.6], b=[0.4]), baseline) == {"a": "-0.100, n=1", "b": "baseline"}


def test_a_baseline_that_is_not_there_or_several_is_refused():
    runs = named(*(results_of([[0.5]], seed=1) for _ in range(2)), settings=[{"lr": "0.1"}, {"lr": "0.2"}])
    with pytest.raises(UserError, match=r"--baseline lwn: no variant or run that is compared; did you mean 'lwm'\?"):
        compare(runs, "lwn")
    with pytest.raises(UserError, match="--baseline lwm: is 2 variants; name a run of the one that is meant"):
        compare(runs, "lwm")
    assert compare(runs, "lwm lr=0.2").baseline == "lwm lr=0.2"


def other_classes(results):
    results.class_names = ["apple", *results.class_names[1:]]


def other_images(results):
    results.data = {"sha256": "b"}


def not_ended(results):
    results.complete = False


@pytest.mark.parametrize("change", [other_classes, other_images, not_ended])
def test_no_difference_is_told_between_runs_that_learned_or_measured_something_else(change):
    ours, theirs = (results_of(THREE, recipe=name) for name in ("a", "b"))
    ours.data = theirs.data = {"sha256": "a"}
    assert compare(named(ours, theirs)).rows[1].differences["last"].n == 1
    held_out = named(ours, theirs, settings=[{}, {"evaluation.validation": "0.1"}])
    assert compare(held_out).rows[1].differences["last"] is None, "other images were measured on"
    change(theirs)
    assert compare(named(ours, theirs)).rows[1].differences["last"] is None


def test_averages_over_other_steps_are_not_compared():
    ours, theirs = results_of(THREE, recipe="a"), results_of(THREE, recipe="b")
    theirs.steps = theirs.steps[1:]
    theirs.steps[0].new_classes = [0, 1, 2, 3]
    ours.steps[0].model_bytes, ours.steps[0].accuracy = 900, {"cnn": 0.0}
    rows = compare(named(ours, theirs)).rows
    assert (rows[1].differences["average"], rows[1].differences["last"].n) == (None, 1)
    assert [row.best for row in rows] == [True, True], "neither is a rival of the other"


def test_a_difference_is_between_the_same_readouts():
    ours, theirs = results_of(THREE, recipe="a"), results_of(THREE, recipe="b", who=("nme", "cnn"))
    rows = compare(named(ours, theirs)).rows
    assert [(row.readout, row.differences and row.differences["last"] is not None) for row in rows] == [
        ("cnn", {}), ("nme", False), ("cnn", True),
    ]  # fmt: skip


def test_rows_by_bytes_say_which_are_best_for_theirs():
    sizes = {"small": (100, [0.3]), "large": (900, [0.8]), "worse": (500, [0.2]), "good": (400, [0.5])}
    runs = accuracies(**{name: values for name, (_, values) in sizes.items()})
    for run, (size, _) in zip(runs, sizes.values(), strict=True):
        (step,) = run.results.steps
        step.model_bytes, step.memory_bytes, step.readout_bytes = size - 30, 20, {"cnn": 10}
    header, rows = comparison_rows(runs, by_bytes=True)
    assert header[:6] == ["recipe", "read-out", "seeds", "total", "best", "average"]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("small", "0.1 kB", "best"), ("good", "0.4 kB", "best"), ("worse", "0.5 kB", ""), ("large", "0.9 kB", "best"),
    ]  # fmt: skip
    assert header.count("total") == 1


def podnet(sizes, **changed):
    """A run of the shipped recipe podnet in steps of such sizes."""
    results = results_of([[0.5] * n for n in range(1, len(sizes) + 1)], recipe="podnet")
    results.providers = {"cifar100": "lwmfw 1"}
    for step, size in zip(results.steps, sizes, strict=True):
        step.new_classes = list(range(size))
    for name, value in changed.items():
        setattr(results, name, value)
    return results


def test_published_figures_stand_beside_runs_of_their_protocol_and_data_alone():
    sizes = [50, *[10] * 5]
    header, (row,) = comparison_rows(named(podnet(sizes)))
    assert row[header.index("published")] == "average 0.648 (Douillard et al. 2020, three orders; settings not known)"
    others = [podnet(sizes[:5]), podnet(sizes, providers={"cifar10": "x"}), podnet(sizes, complete=False)]
    assert not any("published" in comparison_rows(named(other))[0] for other in others)
    held_out = named(podnet(sizes), settings=[{"evaluation.validation": "0.1"}])
    assert "published" not in comparison_rows(held_out)[0], "no test images"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scenario.order": '"random"', "data.root": '"/data"', "readouts.ridge.use": '"ridge"'}, ""),
        ({"training.epochs": "1"}, "; other settings"),
        ({"readouts.cnn.use": '"ridge"'}, "; other settings"),
        ({"training.more": "1"}, "; other settings"),
        ({"training.precision": None}, ""),  # as of a version that did not have it
        ({"penalties.POD.use": None}, "; other settings"),
    ],
)
def test_published_figures_beside_runs_of_other_settings_say_so(changed, said):
    tables = load_recipe(shipped.find("cifar100/b50/podnet")).tables()
    results = podnet([50, *[10] * 5])
    settings = settings_of(tables, results) | changed
    runs = named(results, settings=[{key: value for key, value in settings.items() if value is not None}])
    header, (row,) = comparison_rows(runs)
    assert row[header.index("published")] == f"average 0.648 (Douillard et al. 2020, three orders{said})"
    assert ("published" in comparison_rows(runs, brief=True)[0]) == (not said)


def test_the_plain_comparison_has_every_number_in_full():
    runs = accuracies(a=[1 / 3, 2 / 3], b=[0.25, 0.5])
    plain = json.loads(json.dumps(plain_comparison(compare(runs)), allow_nan=False))
    a, b = plain["rows"]
    assert (plain["baseline"], a["seeds"], a["runs"], b["differences"]["last"]["n"]) == (
        "a",
        [1, 2],
        ["run1", "run2"],
        2,
    )
    assert a["measures"]["average"] == {"mean": 0.5, "deviation": pytest.approx(0.23570226039551584), "n": 2}
    assert (a["differences"], a["measures"]["forgetting"], a["costs"]["total"]) == ({}, None, 40)
    assert b["differences"]["last"]["mean"] == pytest.approx(-0.125)
    assert not re.search(r"NaN|Infinity", json.dumps(plain))
