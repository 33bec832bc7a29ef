"""Adding classes to a run that has ended, and proving what that was worth, by the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.command import lwmfw
from helpers.months import CLASSES, READOUTS, counts, extend, pictures, statistics
from helpers.pictures import save
from PIL import Image

import lwmfw as framework
from lwmfw.testing import tiny_run


def test_a_run_is_extended_again_and_again_without_its_old_data(place):
    results = json.loads((place / "may-run" / "results.json").read_text())
    assert results["class_names"] == ["ant", "bee", "cat", "dog", "elk", "fox"]
    assert [step["seen"] for step in results["steps"]] == [3, 4, 6]
    assert results["complete"]
    assert list(results["steps"][-1]["accuracy"]) == ["ridge", "ncm", "fecam"]  # the classifier was not trained
    assert all(said["exact"] for said in results["steps"][-1]["readouts"].values())
    # of classes without test images nothing is said
    assert results["steps"][-1]["accuracy_by_step"]["ridge"][:2] == [None, None]
    assert [Path(source["data"]["root"]).name for source in results["sources"]] == ["months", "april", "may"]


def test_what_was_learned_month_by_month_is_what_is_learned_at_once(place, tmp_path):
    for name in ("april", "may"):
        shutil.copytree(place / name, tmp_path / "both", dirs_exist_ok=True)
    extend(place / "base" / "run", tmp_path / "both", tmp_path / "run")
    # held-out images are chosen by their names below the folder, so that the same ones were learned from
    assert statistics(tmp_path / "run") == statistics(place / "may-run")


def test_verify_computes_anew_over_all_images(place, tmp_path):
    done = lwmfw("verify", place / "may-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 3
    moved = [tmp_path / name for name in CLASSES]
    for name, folder in zip(CLASSES, moved, strict=True):
        shutil.copytree(place / name, folder)
    named = [part for folder in moved for part in ("--data", folder)]
    assert lwmfw("verify", place / "may-run", *named).returncode == 0
    done = lwmfw("verify", place / "may-run", *named[:4])
    assert done.returncode == 2
    assert "has learned from 3 places, oldest first: " in done.stderr
    (moved[1] / "dog" / "0.png").unlink()
    (moved[1] / "dog" / "1.png").unlink()
    done = lwmfw("verify", place / "may-run", *named, "--json")
    assert done.returncode == 1
    assert "it has learned from 48 images, these are 46" in done.stderr
    assert [said["equal"] for said in json.loads(done.stdout)] == [False] * 3


def test_read_outs_that_are_not_from_sums_are_left_out_of_verify_and_of_retract(place, tmp_path):
    data = {"use": "folder", "root": str(place / "months"), "size": 8, "decode": "once"}
    tables = {"data": data, "scenario": {"first": 0, "increment": 0, "order": "given"}}
    for name, readouts in {"both": [{"use": "som", "side": 2}, {"use": "ncm"}], "som": [{"use": "som"}]}.items():
        (tmp_path / name).mkdir()
        tiny_run(tables | {"readouts": readouts}, tmp_path / name)
    done = lwmfw("verify", tmp_path / "both" / "run")
    assert (done.returncode, done.stdout.count("equal")) == (0, 1), done.stderr
    pictures(tmp_path / "some", ["cat"], count=1)
    taken = ("--data", tmp_path / "some", "--out", tmp_path / "less")
    assert lwmfw("retract", tmp_path / "both" / "run", *taken).returncode == 0
    assert counts(tmp_path / "less") == [8, 8, 7]
    done = lwmfw("verify", tmp_path / "som" / "run")
    assert done.returncode == 2
    assert "has no read-out from sums; name a run with one, such as ridge" in done.stderr


def test_deep_files_of_another_range_are_taken_where_it_is_stated(tmp_path):
    def deep(folder, names, top):
        for name in names:
            for n in range(3):
                grey = torch.randint(0, top, (9, 9), generator=torch.Generator().manual_seed(ord(name[0]) + n))
                save(Image.fromarray(grey.numpy().astype("uint16")), tmp_path / folder / name / f"{n}.png")

    deep("base", ["ant", "bee"], 65536)
    deep("more", ["cat"], 4096)
    data = {"use": "folder", "root": str(tmp_path / "base"), "size": 8, "decode": "once", "values": [0.0, 65535.0]}
    scenario = {"first": 0, "increment": 0, "order": "given"}
    run = tiny_run({"data": data, "scenario": scenario, "readouts": [{"use": "ncm"}]}, tmp_path).path
    extend(run, tmp_path / "more", tmp_path / "longer", "--set", "data.values=[0.0, 4095.0]")
    assert framework.open_run(tmp_path / "longer").class_names == ["ant", "bee", "cat"]
    assert lwmfw("verify", tmp_path / "longer").returncode == 0
    own = ("--set", "data.values=[]")  # whatever the new files have: the range is not what they were learned with
    done = lwmfw("extend", run, "--data", tmp_path / "more", "--out", tmp_path / "other", *own)
    assert done.returncode == 2
    assert "trained with [0.0, 65535.0]; state data.values if these files have a range of their own" in done.stderr


def test_known_classes_are_refused_unless_more_of_them_is_wanted(place, tmp_path):
    pictures(tmp_path / "again", ["bee", "gnu"], first=20)
    done = lwmfw("extend", place / "may-run", "--data", tmp_path / "again", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == "data: known already: bee; leave them out, or take more images of them in with --more\n"
    extend(place / "may-run", tmp_path / "again", tmp_path / "run", "--more")
    assert counts(tmp_path / "run") == [8, 16, 8, 8, 8, 8, 8]
    shutil.rmtree(tmp_path / "again" / "gnu")
    extend(place / "may-run", tmp_path / "again", tmp_path / "same", "--more")
    results = framework.open_run(tmp_path / "same").results
    assert results.class_names == ["ant", "bee", "cat", "dog", "elk", "fox"]
    assert results.steps[-1].new_classes == []
    assert lwmfw("verify", tmp_path / "same").returncode == 0
    back = ("--data", tmp_path / "again", "--out", tmp_path / "back")
    assert lwmfw("retract", tmp_path / "same", *back, report=True).returncode == 0
    assert (tmp_path / "back" / "report.html").exists()
    assert statistics(tmp_path / "back") == statistics(place / "may-run")
    done = lwmfw("extend", tmp_path / "same", "--data", tmp_path / "again", "--more", "--out", tmp_path / "twice")
    assert done.returncode == 2
    assert "again already; put new images into a folder of their own" in done.stderr


def test_accuracy_is_told_by_class_on_a_folder_of_all(place, tmp_path):
    said = json.loads(extend(place / "april-run", place / "may", tmp_path / "run", "--test", place / "test", "--json"))
    assert [row["class"] for row in said["by_class"]] == ["ant", "bee", "cat", "dog", "elk", "fox"]
    assert [row["images"] for row in said["by_class"]] == [4] * 6
    assert [row["new"] for row in said["by_class"]] == [False] * 4 + [True] * 2
    assert said["accuracy"] == said["accuracy_of_tested"]
    assert said["readouts"]["ridge"]["exact"]
    # every image of the folder was learned from, as none had to be held out
    assert counts(tmp_path / "run") == [8, 8, 8, 8, 10, 10]


def test_accuracy_is_of_all_classes_or_not_told(place):
    last = framework.open_run(place / "may-run").results.steps[-1]
    assert set(last.accuracy.values()) == {None}
    assert last.accuracy_by_step["ncm"][-1] is not None


def test_training_goes_on_as_the_recipe_has_it_and_sums_are_carried_over(place, tmp_path):
    extend(place / "base" / "run", place / "april", tmp_path / "run", "--train")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["terms"]) == {"bce", "L_D", "L_AD"}
    said = framework.open_run(tmp_path / "run").results.steps[-1].readouts
    assert not any(each["exact"] for each in said.values())
    assert 0 < said["ridge"]["drift"] < 10
    done = lwmfw("verify", tmp_path / "run")
    assert done.returncode == 2
    assert "the sums of ridge are not exact: the backbone was trained after they were begun" in done.stderr
    done = lwmfw("extend", place / "april-run", "--data", place / "may", "--train", "--out", tmp_path / "no")
    assert done.returncode == 2
    assert "its classifier was not trained on all of its classes; extend it without --train" in done.stderr


def test_a_run_of_the_classifier_alone_says_what_can_be_done(place, tmp_path):
    (tmp_path / "alone").mkdir()
    data = {"use": "folder", "root": str(place / "months"), "size": 8, "decode": "once"}
    alone = tiny_run({"data": data, "scenario": {"first": 0, "increment": 0}}, tmp_path / "alone")
    done = lwmfw("extend", alone.path, "--data", place / "april", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "keeps no sums of the classes it knows, and its read-outs (cnn) learn by training alone; extend it with "
        "--train, or adopt its weights with --data FOLDER of some images a class\n"
    )
    extend(alone.path, place / "april", tmp_path / "run", "--train")


def test_the_resolved_recipe_gives_the_same_bits_again(place, tmp_path):
    done = lwmfw("run", place / "april-run" / "resolved.toml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert statistics(tmp_path / "again") == statistics(place / "april-run")


def test_a_run_that_goes_on_from_another_is_resumed(place, tmp_path):
    extend(place / "base" / "run", place / "april", tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert lwmfw("resume", tmp_path / "run").returncode == 4  # its results say that there were some
    (tmp_path / "run" / "results.json").unlink()
    assert lwmfw("resume", tmp_path / "run").returncode == 0
    assert statistics(tmp_path / "run") == statistics(place / "april-run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extend", "nowhere", "--data", "april"), "nowhere: no run directory; name one that holds a resolved.toml"),
        (("extend", "base/run", "--data", "nowhere"), "cannot be read (No such file or directory)"),
        (("extend", "base/run", "--data", "april", "--more", "--train"), "leave --train or --more out"),
        (("extend", "base/run", "--data", "april", "--set", "data.size=9"), "[data]: size is 9, where the origin was"),
        (
            ("extend", "april-run", "--data", "months", "--more"),
            "months already; put new images into a folder of their",
        ),
        (
            ("extend", "base/run", "--data", "may", "--more", "--set", "training.epochs=1"),
            "are taken in without training",
        ),
        (
            ("extend", "base/run", "--data", "may", "--set", 'readouts=[{use="ridge",lift=9}]'),
            "readouts.ridge.lift: is 9",
        ),
        (("merge", "april-run", "april-run"), "there is nothing to merge"),
        (("retract", "base/run", "--data", "may"), "none of its classes"),
        (("verify", "nowhere"), "nowhere: no results.json; no run directory"),
        (("merge", "april-run", "nowhere"), "nowhere: no results.json; no run directory"),
        (("retract", "may-run", "--data", "months/ant"), "has no folders"),
        (("extend", "base/run", "--data", "april", "--out", "may-run"), "holds a finished run; choose another --out"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(place, monkeypatch, arguments, message):
    monkeypatch.chdir(place)
    done = lwmfw(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_class_of_which_nothing_is_known_is_never_decided_for(place):
    run = framework.open_run(place / "may-run").as_left()
    ridge = run.assembly.of_kind("readout")["ridge"]
    taken = {name: value.clone() for name, value in ridge.method("state")().items() if torch.is_tensor(value)}
    taken["counts"][4], taken["moments"][:, 4] = 0, 0
    ridge.method("restore")(taken)
    scores = ridge.method("scores")(torch.rand(7, taken["gram"].shape[0]))
    assert (scores[:, 4] == -torch.inf).all()


@pytest.mark.slow
def test_a_run_with_exemplars_and_an_observer_of_pictures_is_extended(place, tmp_path):
    data = {"use": "folder", "root": str(place / "months"), "size": 16, "decode": "each epoch"}
    recipe = {
        "data": data,
        "scenario": {"first": 0, "increment": 0, "order": "given"},
        "readouts": [{"use": "ncm"}, {"use": "nme"}],
        "objective": {"use": "cross_entropy", "over": "seen"},
        "memory": {"budget": "8 per class", "select": {"use": "herding"}, "codec": {"use": "jpeg"}},
        "observers": [{"use": "attention-drift"}],
    }
    run = tiny_run(recipe, tmp_path)
    extend(run.path, place / "april", tmp_path / "more")
    assert counts(tmp_path / "more") == [8, 8, 8, 8]
    extend(run.path, place / "april", tmp_path / "trained", "--train", "--test", place / "test")
    assert set(framework.open_run(tmp_path / "trained").results.last_accuracy) == {"ncm", "nme"}
    for verb in (("merge", run.path, tmp_path / "more"), ("retract", run.path, "--data", place / "april")):
        done = lwmfw(*verb)
        assert done.returncode == 2
        assert "keeps exemplars" in done.stderr


def test_an_adopted_or_extended_run_has_no_first_step_to_share(place, tmp_path):
    run = place / "april-run"
    text = (run / "resolved.toml").read_text()
    (tmp_path / "other.toml").write_text(text[: text.index("[origin]")] + text[text.index("[data]") :])
    done = lwmfw("run", tmp_path / "other.toml", "--from", run)
    assert done.returncode == 2
    assert "has not trained its first step itself; leave --from out" in done.stderr


def test_a_read_out_that_begins_later_is_not_exact(place, tmp_path):
    settings = 'readouts=[{use="ncm"},{use="lda"}]'
    extend(place / "base" / "run", place / "april", tmp_path / "run", "--set", settings)
    said = framework.open_run(tmp_path / "run").results.steps[-1].readouts
    assert {name: each["exact"] for name, each in said.items()} == {"ncm": True, "lda": False}


def test_a_single_image_is_enough_for_a_class(place, tmp_path):
    pictures(tmp_path / "few", ["yak"])
    pictures(tmp_path / "few", ["zebu"], count=1)
    extend(place / "base" / "run", tmp_path / "few", tmp_path / "run")
    assert counts(tmp_path / "run") == [8, 8, 8, 8, 1]
    shutil.rmtree(tmp_path / "few" / "yak")
    extend(place / "base" / "run", tmp_path / "few", tmp_path / "one", "--train")


def test_what_a_base_held_out_for_validation_is_not_held_out_of_a_folder(place, tmp_path):
    data = {"use": "folder", "root": str(place / "months"), "size": 8, "decode": "once"}
    recipe = {"data": data, "scenario": {"first": 0, "increment": 0}, "readouts": READOUTS}
    run = tiny_run(recipe | {"evaluation": {"validation": 0.3}}, tmp_path)
    said = json.loads(extend(run.path, place / "april", tmp_path / "run2", "--test", place / "test", "--json"))
    assert [row["images"] for row in said["by_class"]] == [4] * 4


def test_a_base_without_a_folder_is_verified_when_the_others_have_moved(place, tmp_path):
    readouts = [{"use": "ncm"}]
    scenario = {"first": 0, "increment": 0, "order": "given"}
    (tmp_path / "first").mkdir()
    run = tiny_run({"readouts": readouts, "scenario": scenario, "data": {"use": "synthetic"}}, tmp_path / "first")
    extend(run.path, place / "april", tmp_path / "run")
    assert lwmfw("verify", tmp_path / "run").returncode == 0
    shutil.copytree(place / "april", tmp_path / "moved")
    assert lwmfw("verify", tmp_path / "run", "--data", tmp_path / "moved").returncode == 0


def test_an_unfinished_run_is_refused(place, tmp_path):
    shutil.copytree(place / "april-run", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "DONE").unlink()
    for arguments in (
        ("verify", tmp_path / "unfinished"),
        ("merge", tmp_path / "unfinished", place / "may-run"),
        ("retract", tmp_path / "unfinished", "--data", place / "april"),
        ("extend", tmp_path / "unfinished", "--data", place / "may"),
    ):
        done = lwmfw(*arguments)
        assert done.returncode == 2
        assert "has not ended; `lwmfw resume " in done.stderr


def test_parts_of_plug_ins_are_made_where_the_base_has_none(place, tmp_path):
    penalties = 'penalties=[{use="self-rotation"},{use="L_D"}]'
    extend(place / "base" / "run", place / "april", tmp_path / "run", "--train", "--set", penalties)
    parts = framework.open_run(tmp_path / "run").checkpoint().model
    assert "extras.self-rotation.weight" in parts


def test_what_happens_is_told_once(place, tmp_path):
    base = place / "base" / "run"
    settings = ("--set", "observers=[{use='console'}]", "--set", "scenario.first=1", "--set", "scenario.increment=1")
    command = ("extend", base, "--data", place / "may", "--out", tmp_path / "run", "--log", tmp_path / "log")
    assert "the recipe has no console" in lwmfw(*command).stderr
    done = lwmfw(*command, *settings)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().endswith("/run: finished\n"), "of old classes there are no images to test"
    assert done.stderr.count("goes on from") == 1
    assert "resumed" not in done.stderr
    assert done.stderr.count(", exact") == 6
