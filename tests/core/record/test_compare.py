"""Runs side by side: which of them are seeds of one variant, and what is blank."""

from helpers.plugin_files import ANGLES
from helpers.results import THREE, named, results_of

from lwmfw.record.compare import comparison_rows, result_rows
from lwmfw.record.reading import RecordedRun, digest_of
from lwmfw.record.results import Results, accuracy_csv
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
        "step 1": "0.900", "step 2": "", "step 3": "0.700", "BWT": "-0.200", "task-aware": "",
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
    _, rows = comparison_rows(named(begun, results_of(THREE)))
    assert rows[0] == ["begun (unfinished)", "", "1", *[""] * (len(rows[0]) - 3)]
    assert rows[1][:2] == ["lwm", "cnn"]
    assert result_rows(begun)[1] == []


def test_many_steps_of_one_size_are_counted():
    ten, two = results_of([[0.8] * n for n in range(1, 11)], seed=1), results_of([[0.8], [0.4, 0.6]], seed=2)
    ten.steps[0].new_classes = list(range(50))
    assert [row[0] for row in comparison_rows(named(ten, two))[1]] == [
        "lwm on classes from class 0, 50 + 9 x 2",
        "lwm on classes from class 0, 2 + 2",
    ]
