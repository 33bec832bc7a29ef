"""Runs that learned apart are made one, and images are taken out again, by the command line."""

import json
import os
import shutil

from helpers.command import lwmfw
from helpers.months import READOUTS, counts, extend, pictures, statistics

import lwmfw as framework
from lwmfw.engine.evaluate import digest
from lwmfw.testing import tiny_run
from lwmfw_plugins.data.folder import OwnImages, OwnOptions


def test_two_who_learned_apart_are_merged_to_the_bit(place, tmp_path):
    extend(place / "base" / "run", place / "may", tmp_path / "may-alone")
    done = lwmfw("merge", place / "april-run", tmp_path / "may-alone", "--out", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert statistics(tmp_path / "merged") == statistics(place / "may-run")
    assert lwmfw("verify", tmp_path / "merged").returncode == 0
    extended = json.loads((tmp_path / "merged" / "results.json").read_text())
    assert extended["class_names"] == ["ant", "bee", "cat", "dog", "elk", "fox"]
    pictures(tmp_path / "june", ["gnu"])
    extend(tmp_path / "merged", tmp_path / "june", tmp_path / "june-run")  # a run like any other


def test_retract_undoes_extend_to_the_bit(place, tmp_path):
    done = lwmfw("retract", place / "may-run", "--data", place / "may", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert statistics(tmp_path / "less") == statistics(place / "april-run")
    less, before = (framework.open_run(path) for path in (tmp_path / "less", place / "april-run"))
    assert less.class_names == before.class_names == ["ant", "bee", "cat", "dog"]
    assert digest(less.model.backbone.state_dict()) == digest(before.model.backbone.state_dict())
    assert lwmfw("verify", tmp_path / "less").returncode == 0


def test_a_class_whose_name_is_not_utf_8_is_taken_in_and_out_like_any(place, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    pictures(tmp_path / "new", [name, "tea"])
    extend(place / "base" / "run", tmp_path / "new", tmp_path / "run")
    assert framework.open_run(tmp_path / "run").class_names == ["ant", "bee", "cat", name, "tea"]
    assert lwmfw("verify", tmp_path / "run").returncode == 0
    done = lwmfw("retract", tmp_path / "run", "--data", tmp_path / "new", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert statistics(tmp_path / "less") == statistics(place / "base" / "run")


def test_an_image_that_cannot_be_read_is_told_of_without_a_setting_that_retract_has_not(place, tmp_path):
    shutil.copytree(place / "may", tmp_path / "may")
    bad = next(path for path in (tmp_path / "may").rglob("*") if path.is_file())
    bad.write_bytes(b"no image")
    done = lwmfw("retract", place / "may-run", "--data", tmp_path / "may", "--out", tmp_path / "less")
    assert done.returncode == 2
    assert f"images cannot be read: {bad} (" in done.stderr
    assert done.stderr.endswith("); replace or remove them\n")


def test_single_images_are_retracted_and_no_more_than_there_were(place, tmp_path):
    learned = sorted(path for path in (place / "may" / "fox").iterdir())
    (tmp_path / "some" / "fox").mkdir(parents=True)
    for path in learned:
        shutil.copy(path, tmp_path / "some" / "fox")
    done = lwmfw("retract", place / "may-run", "--data", tmp_path / "some", "--out", tmp_path / "less")
    assert done.returncode == 2
    assert "has learned from 8 images of fox, and 10 are to be taken out" in done.stderr
    for path in learned[3:]:
        (tmp_path / "some" / "fox" / path.name).unlink()
    done = lwmfw("retract", place / "may-run", "--data", tmp_path / "some", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "less") == [8, 8, 8, 8, 8, 5]
    statistics(tmp_path / "less")
    # nobody can tell whether these were the images
    last = framework.open_run(tmp_path / "less").results.steps[-1]
    assert not any(said["exact"] for said in last.readouts.values())
    assert set(last.accuracy.values()) == {None}
    done = lwmfw("verify", tmp_path / "less")
    assert done.returncode == 2
    assert "are not exact: " in done.stderr


def test_folders_in_classes_are_looked_into_as_they_were_when_they_were_learned_from(place, tmp_path):
    pictures(tmp_path / "june" / "gnu", ["left", "right"], count=4)
    pictures(tmp_path / "june" / "hen", ["left", "right"], count=4)
    extend(place / "may-run", tmp_path / "june", tmp_path / "run", "--set", "data.nested=take")
    shutil.copytree(tmp_path / "june", tmp_path / "some")
    learned = counts(tmp_path / "run")
    for name in ("gnu", "hen"):  # no more of them than were learned from
        for path in sorted((tmp_path / "some" / name).rglob("*.png"))[3:]:
            if path.parent.name == "right" and path.stem != "0":
                path.unlink()
        (tmp_path / "some" / name / "left" / "0.png").unlink()
    done = lwmfw("retract", tmp_path / "run", "--data", tmp_path / "some", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "less") == [*learned[:6], learned[6] - 4, learned[7] - 4]


def test_runs_of_other_backbones_are_not_merged(place, tmp_path):
    data = {"use": "folder", "root": str(place / "months"), "size": 8, "decode": "once"}
    other = tiny_run(
        {"data": data, "seed": 2, "scenario": {"first": 0, "increment": 0}, "readouts": READOUTS}, tmp_path
    )
    done = lwmfw("merge", place / "base" / "run", other.path)
    assert done.returncode == 2
    assert "has another backbone than" in done.stderr


def test_a_folder_that_was_filled_anew_is_another_source(place, tmp_path):
    pictures(tmp_path / "new", ["dog"])
    extend(place / "base" / "run", tmp_path / "new", tmp_path / "one")
    shutil.rmtree(tmp_path / "new")
    pictures(tmp_path / "new", ["elk", "fox"])
    extend(place / "base" / "run", tmp_path / "new", tmp_path / "two")
    assert lwmfw("merge", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both").returncode == 0
    assert counts(tmp_path / "both") == [8] * 6
    assert statistics(tmp_path / "both") == statistics(place / "may-run")
    # what is there now is not what the first has learned from
    done = lwmfw("retract", tmp_path / "one", "--data", tmp_path / "new", "--out", tmp_path / "less")
    assert done.returncode == 2
    # each month in one folder
    extend(tmp_path / "one", tmp_path / "new", tmp_path / "three")
    assert statistics(tmp_path / "three") == statistics(place / "may-run")


def test_what_both_have_learned_after_they_parted_is_not_counted_twice(place, tmp_path):
    extend(place / "base" / "run", place / "may", tmp_path / "may-alone")
    assert lwmfw("merge", place / "april-run", tmp_path / "may-alone", "--out", tmp_path / "both").returncode == 0
    pictures(tmp_path / "june", ["gnu"])
    extend(tmp_path / "may-alone", tmp_path / "june", tmp_path / "june-run")
    done = lwmfw("merge", tmp_path / "june-run", tmp_path / "both", "--out", tmp_path / "wrong")
    assert done.returncode == 2
    assert "may after they parted, which would count twice; retract it from one of them first" in done.stderr
    # any folder is retracted exactly, wherever it stands, and of a merge too
    done = lwmfw("retract", tmp_path / "both", "--data", place / "may", "--out", tmp_path / "april-only")
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "april-only") == [8, 8, 8, 8]
    assert lwmfw("merge", tmp_path / "june-run", tmp_path / "april-only", "--out", tmp_path / "all").returncode == 0
    assert lwmfw("verify", tmp_path / "all").returncode == 0
    assert counts(tmp_path / "all") == [8] * 7


def test_a_folder_from_the_middle_is_retracted_exactly_wherever_it_lies_now(place, tmp_path):
    shutil.copytree(place / "april", tmp_path / "moved")
    done = lwmfw("retract", place / "may-run", "--data", tmp_path / "moved", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "less") == [8, 8, 8, 0, 8, 8]
    assert all(said["exact"] for said in framework.open_run(tmp_path / "less").results.steps[-1].readouts.values())
    statistics(tmp_path / "less")
    assert lwmfw("verify", tmp_path / "less").returncode == 0


def test_first_runs_with_a_classifier_are_merged_and_retracted_by_their_sums(place, tmp_path):
    base = place / "base" / "run"
    done = lwmfw("merge", base, place / "april-run", "--out", tmp_path / "both", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["accuracy"]) == ["ridge", "ncm", "fecam"]
    assert statistics(tmp_path / "both") == statistics(place / "april-run")
    (tmp_path / "some" / "cat").mkdir(parents=True)
    learned = OwnImages(OwnOptions(root=str(place / "months"))).load().train.paths
    shutil.copy(next(path for path in learned if "cat" in path), tmp_path / "some" / "cat")
    assert lwmfw("retract", base, "--data", tmp_path / "some", "--out", tmp_path / "less").returncode == 0
    assert counts(tmp_path / "less") == [8, 8, 7]
    statistics(tmp_path / "less")
    assert lwmfw("compare", tmp_path / "less", tmp_path / "both").returncode == 0


def test_the_base_of_a_merge_is_the_run_that_both_go_on_from(place, tmp_path):
    extend(place / "base" / "run", place / "may", tmp_path / "may-alone")
    merge = ("merge", place / "april-run", tmp_path / "may-alone", "--out", tmp_path / "merged", "--base")
    done = lwmfw(*merge, place / "may-run")
    assert done.returncode == 2
    assert "may-run is not the run that both go on from; name that one" in done.stderr
    shutil.copytree(place / "base" / "run", tmp_path / "moved")
    assert lwmfw(*merge, tmp_path / "moved").returncode == 0
    assert statistics(tmp_path / "merged") == statistics(place / "may-run")


def test_a_class_in_the_middle_is_taken_out_and_never_decided_for(place, tmp_path):
    (tmp_path / "some" / "dog").mkdir(parents=True)
    learned = OwnImages(OwnOptions(root=str(place / "april"))).load().train.paths
    others = sorted({str(path) for path in (place / "april" / "dog").iterdir()} - set(learned))
    for path in [*learned[2:], *others]:
        shutil.copy(path, tmp_path / "some" / "dog")
    done = lwmfw("retract", place / "may-run", "--data", tmp_path / "some", "--out", tmp_path / "less")
    assert done.returncode == 2
    assert "ridge cannot be solved without these images; name images that it has learned from" in done.stderr
    shutil.rmtree(tmp_path / "some" / "dog")
    (tmp_path / "some" / "dog").mkdir()
    for path in learned:
        shutil.copy(path, tmp_path / "some" / "dog")
    assert lwmfw("retract", place / "may-run", "--data", tmp_path / "some", "--out", tmp_path / "less").returncode == 0
    assert counts(tmp_path / "less") == [8, 8, 8, 0, 8, 8]
    statistics(tmp_path / "less")
    done = lwmfw("predict", tmp_path / "less", place / "test", "--json", "--readout", "ncm", "--top", "6")
    assert done.returncode == 0, done.stderr
    assert all("dog" not in [each["class"] for each in said["classes"]] for said in json.loads(done.stdout))


def test_what_other_verbs_have_made_is_not_run_again(place, tmp_path):
    assert lwmfw("retract", place / "may-run", "--data", place / "may", "--out", tmp_path / "less").returncode == 0
    done = lwmfw("run", tmp_path / "less" / "resolved.toml", "--out", tmp_path / "again")
    assert done.returncode == 2
    assert "`lwmfw retract` has made this run, and alone can make it again" in done.stderr
    assert lwmfw("check", tmp_path / "less" / "resolved.toml").returncode == 0


def test_a_relative_path_is_the_same_folder(place, tmp_path, monkeypatch):
    (place / "inside").mkdir(exist_ok=True)
    monkeypatch.chdir(place / "inside")
    done = lwmfw("retract", "../may-run", "--data", "../may", "--out", tmp_path / "less")
    assert done.returncode == 0, done.stderr
    assert statistics(tmp_path / "less") == statistics(place / "april-run")
