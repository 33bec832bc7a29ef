"""`lwmfw predict`: images in files are decided about as the run's own test images were, in three formats."""

import csv
import io
import json
import math
import shutil

import pytest
import torch
from helpers.command import lwmfw
from helpers.pictures import make_folder, noise, save
from PIL import Image

from lwmfw.data.listing import IMAGE_SUFFIXES
from lwmfw.testing import tiny_run
from lwmfw.using import predict
from lwmfw.using.predict import ranked

DATA = {"use": "synthetic", "classes": 4, "train_per_class": 16, "test_per_class": 8, "size": 8}
READOUTS = [{"use": name} for name in ("cnn", "lda", "ncm")]


@pytest.fixture(scope="module", params=[3, 1], ids=["colour", "grey"])
def run(request, tmp_path_factory):
    """A finished run of two steps on images of 3 channels or of 1, its test images beside it as files."""
    folder = tmp_path_factory.mktemp("finished")
    done = tiny_run({"data": DATA | {"channels": request.param}, "readouts": READOUTS}, folder)
    test = done.run.data.test
    for number, pixels in enumerate(test.pixels):
        array = pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy()
        save(Image.fromarray(array), folder / "test" / f"{number:03}.png")
    return done


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with five pictures of any size, one of them in a folder of its own, and what is no picture."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(4):
        save(noise(40 + number, 30, number), folder / f"{number}.png")
    save(noise(20, 60), folder / "more" / "tall.JPG", format="jpeg")
    for name in (".hidden.png", ".cache/5.png", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no picture")
    return folder


def answers(*arguments):
    done = lwmfw("predict", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("readout", ["cnn", "lda", "ncm"])
def test_files_are_decided_about_as_the_test_images_were(run, readout):
    found = answers(run.path, run.path.parent / "test", "--readout", readout)
    names, labels = run.results.class_names, run.run.data.test.labels.tolist()
    right = [each["classes"][0]["class"] == names[label] for each, label in zip(found, labels, strict=True)]
    assert sum(right) / len(right) == run.results.last_accuracy[readout]
    assert [each["image"] for each in found] == sorted(each["image"] for each in found)


def test_photographs_are_cut_out_of_the_middle_as_those_of_the_run_were(tmp_path):
    make_folder(tmp_path / "pictures", ["ant", "bee", "cat", "dog"])
    data = {"use": "folder", "root": str(tmp_path / "pictures"), "size": 16}
    done = tiny_run({"data": data, "readouts": [{"use": "lda"}]}, tmp_path)
    test = done.run.data.test
    found = answers(done.path, *test.paths)
    right = [
        each["classes"][0]["class"] == done.results.class_names[label]
        for each, label in zip(found, test.labels.tolist(), strict=True)
    ]
    assert test.resize > test.size
    assert sum(right) / len(right) == done.results.last_accuracy["lda"]


def test_a_table_says_what_the_probability_is(run, photographs):
    done = lwmfw("predict", run.path, photographs, "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows, empty, words = done.stdout.splitlines()
    assert header.split() == ["image", "rank", "class", "score", "probability"]
    assert (empty, words) == ("", "probability: softmax of the classifier's logits, not calibrated")
    assert [row.split()[:2] for row in rows[:2]] == [
        [str(photographs / "0.png"), "1"],
        [str(photographs / "0.png"), "2"],
    ]
    assert len(rows) == 10
    assert rows[-1].startswith(str(photographs / "more" / "tall.JPG"))


def test_scores_that_are_no_probabilities_are_shown_without(run, photographs):
    image = photographs / "0.png"
    header, row = lwmfw("predict", run.path, image, "--readout", "ncm").stdout.splitlines()
    assert header.split() == ["image", "rank", "class", "score"]
    assert row.split()[:3] == [str(image), "1", "pattern"]
    (answer,) = answers(run.path, image, "--readout", "ncm")
    assert answer["probability_is"] is None
    assert answer["classes"][0]["probability"] is None
    done = lwmfw("predict", run.path, image, "--readout", "ncm", "--csv")
    assert done.stderr == ""
    assert next(csv.DictReader(io.StringIO(done.stdout)))["probability"] == ""


def test_csv_and_json_say_the_same(run, photographs):
    done = lwmfw("predict", run.path, photographs, "--readout", "lda", "--top", "9", "--csv")
    words = "posterior of normal distributions with one covariance and equal priors"
    assert done.stderr == f"probability: {words}\n"
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    found = answers(run.path, photographs, "--readout", "lda", "--top", "9")
    assert {each["probability_is"] for each in found} == {words}
    assert {each["readout"] for each in found} == {"lda"}
    said = [(each["image"], *each["classes"][n].values()) for each in found for n in range(4)]
    for row, (image, name, score, probability) in zip(rows, said, strict=True):
        assert (row["image"], row["class"]) == (image, name)
        assert float(row["score"]) == pytest.approx(score, rel=1e-5)
        assert float(row["probability"]) == pytest.approx(probability, rel=1e-5)
    for each in found:
        assert sum(said["probability"] for said in each["classes"]) == pytest.approx(1)


def test_the_best_are_first_and_a_class_of_which_nothing_is_known_is_left_out():
    scores = torch.tensor([[0.5, -torch.inf, 2.0, 1.0], [-torch.inf, -torch.inf, 0.0, torch.nan]])
    first, second = ranked(scores, "abcd", 9, probable=True)
    total = sum(map(math.exp, (0.5, 2.0, 1.0)))
    assert [said.name for said in first] == ["c", "d", "a"]
    assert [said.probability for said in first] == pytest.approx([math.exp(x) / total for x in (2.0, 1.0, 0.5)])
    assert [(said.name, said.score, said.probability) for said in second] == [("c", 0.0, 1.0)]
    assert ranked(scores, "abcd", 1, probable=False)[0] == [("c", 2.0, None)]


def test_what_cannot_be_read_is_told_and_the_rest_decided(run, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "PART", 2)
    shutil.copytree(photographs, "mixed")
    for name in ("1.png", "more/flat.png"):
        (tmp_path / "mixed" / name).write_text("no picture")
    done = lwmfw("predict", run.path, "mixed", "--csv")
    assert done.returncode == 0
    images = [row["image"] for row in csv.DictReader(io.StringIO(done.stdout))]
    assert images == ["mixed/0.png", "mixed/2.png", "mixed/3.png", "mixed/more/tall.JPG"]
    *told, _ = done.stderr.splitlines()
    reason = "cannot be read (no image of a known format); replace or remove the file"
    assert told == [f"mixed/1.png: {reason}", f"mixed/more/flat.png: {reason}"]
    (tmp_path / "mixed" / "0.png").write_text("no picture")
    none = lwmfw("predict", run.path, "mixed/0.png", "mixed/1.png")
    assert none.returncode == 2
    assert none.stderr.splitlines() == [
        f"mixed/0.png: {reason}",
        f"mixed/1.png: {reason}",
        "none of 2 images can be read; name others",
    ]
    alone = lwmfw("predict", run.path, "mixed/0.png")
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, "", f"mixed/0.png: {reason}\n")


def test_what_is_not_there_is_refused_in_one_line(run, photographs, tmp_path):
    shutil.copytree(photographs, "photographs")
    (tmp_path / "empty").mkdir()
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    for arguments, said in {
        (run.path, "photograph"): "photograph: no such file or folder; did you mean 'photographs'?",
        (run.path, "x/y"): "x/y: no such file or folder; name an image, or a folder with images",
        (run.path, "empty"): f"empty: has no images ({known}); name another folder, or the files",
        (
            run.path,
            "photographs",
            "--readout",
            "nmc",
        ): f"--readout: {run.path} has no read-out 'nmc'; did you mean 'ncm'?",
        (run.path, "photographs", "--readout", "xyz"): (
            f"--readout: {run.path} has no read-out 'xyz'; choose of cnn, lda, ncm"
        ),
        ("nowhere", "photographs"): "nowhere: no run directory; name one that holds a resolved.toml",
    }.items():
        done = lwmfw("predict", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}\n")


def test_a_run_on_images_that_no_file_can_hold_is_refused(photographs, tmp_path):
    done = tiny_run({"data": DATA | {"channels": 5}}, tmp_path)
    said = lwmfw("predict", done.path, photographs)
    words = "sees images of 5 channels, and files have 1 or 3; name another run"
    assert (said.returncode, said.stderr) == (2, f"{done.path}: {words}\n")
