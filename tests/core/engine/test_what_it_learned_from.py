"""What a run goes on from is what it was: its images, wherever they lie, and the files of its components."""

import json
import shutil

import pytest
import torch
from helpers.command import lwmfw
from helpers.months import pictures
from helpers.runs import halted

import lwmfw as framework
from lwmfw.data.images import DataSet, ImageFiles, Images
from lwmfw.engine.facts import data_facts
from lwmfw.errors import CheckpointRefused
from lwmfw.record import checkpoint
from lwmfw.record.reading import RecordedRun
from lwmfw.record.summed import write_summed
from lwmfw.record.tables import comparison_rows
from lwmfw.testing import tiny_recipe, tiny_run

NAMES = ("ant", "bee", "cat", "dog")


def folder_of(root, decode="once"):
    return {"data": {"use": "folder", "root": str(root), "size": 8, "decode": decode}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with pictures, and a run on it that has finished its first of two steps."""
    place = tmp_path_factory.mktemp("begun")
    pictures(place / "data", NAMES, count=5)
    halted(place, folder_of(place / "data"))
    return place


@pytest.fixture
def place(begun, tmp_path):
    """A copy of them, elsewhere."""
    shutil.copytree(begun, tmp_path / "copy")
    return tmp_path / "copy"


def results(run):
    found = json.loads((run / "results.json").read_text())
    for step in found["steps"]:
        del step["train_seconds"], step["part_seconds"]
    return found


def resumed(place, *more):
    return lwmfw("resume", place / "run", "--set", f"data.root={place / 'data'}", *more)


def new_class(data):
    pictures(data, ["aardvark"], count=5)


def renamed(data):
    (data / "dog").rename(data / "dachshund")


def fewer(data):
    for image in sorted((data / "cat").iterdir())[:3]:
        image.unlink()


def replaced(data):
    image, other = data / "cat" / "0.png", data / "dog" / "0.png"
    image.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (new_class, "class 'aardvark' has come"),
        (renamed, "class 'dachshund' has come, class 'dog' has gone"),
        (fewer, "3 images fewer in 'cat'"),
        (replaced, "other images in 'cat'"),
        (lambda data: shutil.rmtree(data / "ant"), "class 'ant' has gone"),
    ],
)
def test_a_run_does_not_go_on_with_other_images(place, change, words):
    change(place / "data")
    done = resumed(place)
    assert done.returncode == 4, done.stderr
    assert f"run: has learned from other data than are there now: {words}; put back what was there" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(place) not in (place / "run" / "resolved.toml").read_text()


@pytest.mark.parametrize(("change", "code"), [(fewer, 0), (replaced, 0), (new_class, 4), (renamed, 4)])
def test_other_images_may_be_allowed_and_other_classes_not(place, change, code):
    before = results(place / "run")["data"]["sha256"]
    change(place / "data")
    done = resumed(place, "--allow-drift", "data")
    assert done.returncode == code, done.stderr
    if code == 0:
        after = results(place / "run")
        assert after["drift"] == [{"step": 2, "key": "data", "was": before, "is": after["data"]["sha256"]}]


def test_a_run_goes_on_with_the_same_images_elsewhere(begun, place):
    assert resumed(place).returncode == 0
    assert f'root = "{place / "data"}"' in (place / "run" / "resolved.toml").read_text()
    (begun / "whole").mkdir()
    whole = tiny_run(folder_of(begun / "data"), begun / "whole").path
    assert results(place / "run") == results(whole)
    # where images lie makes no other variant
    _, rows = comparison_rows([RecordedRun(whole)])
    assert [row[0] for row in rows] == ["tiny"]
    other = results(place / "run") | {"seed": 2}
    for step in other["steps"]:
        step["train_seconds"], step["part_seconds"] = 1.0, {}
    write_summed(place / "run" / "results.json", json.dumps(other))
    _, rows = comparison_rows([RecordedRun(whole), RecordedRun(place / "run")])
    assert [row[:3] for row in rows] == [["tiny", "cnn", "2"]]


def test_from_python_too(place):
    shutil.copytree(place / "data" / "ant", place / "other" / "ant")
    with pytest.raises(
        CheckpointRefused, match="class 'bee' has gone, class 'cat' has gone, class 'dog' has gone; put"
    ):
        framework.resume(place / "run", {"data.root": place / "other"}, device="cpu")
    assert framework.resume(place / "run", {"data": {"root": place / "data"}}, device="cpu").complete


@pytest.mark.parametrize("setting", ["training.lr=0.2", "data.size=16", "data.use=synthetic", "plugins=[]"])
def test_nothing_but_places_changes_in_a_run_that_goes_on(begun, setting):
    done = lwmfw("resume", begun / "run", "--set", setting)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"--set {setting.split('=')[0]}: ")


def test_run_says_how_to_go_on_with_images_that_have_moved(begun, tmp_path):
    recipe = tiny_recipe(folder_of(tmp_path), tmp_path)
    shutil.copytree(begun / "data" / "ant", tmp_path / "ant")
    shutil.copytree(begun / "data" / "bee", tmp_path / "bee")
    done = lwmfw("run", recipe, "--out", begun / "run")
    assert done.returncode == 2
    assert "(data.root differs); choose another --out, or `lwmfw resume " in done.stderr


def test_a_checkpoint_from_before_such_facts_is_held_against_the_names_of_its_classes(place):
    path = place / "run" / "checkpoints"
    kept = checkpoint.load(path)
    kept.results.data = None
    checkpoint.save(path, kept)
    renamed(place / "data")
    assert "class 'dachshund' has come, class 'dog' has gone" in resumed(place).stderr
    (place / "data" / "dachshund").rename(place / "data" / "dog")
    replaced(place / "data")
    assert resumed(place).returncode == 0
    assert results(place / "run")["data"]["class_names"] == list(NAMES)


def test_a_first_step_is_shared_where_its_classes_have_the_same_images(place, tmp_path):
    first, *_, last = RecordedRun(place / "run").results.class_names
    recipe = tiny_recipe(folder_of(place / "data"), tmp_path)
    pictures(place / "data", [last], count=1, first=30)  # of a later step
    assert lwmfw("run", recipe, "--from", place / "run", "--out", tmp_path / "run").returncode == 0
    pictures(place / "data", [first], count=5, first=30)
    for more in ([], ["--dry-run"]):
        done = lwmfw("run", recipe, "--from", place / "run", "--out", tmp_path / "other", *more)
        assert done.returncode == 2
        said = f"its first step was trained on other data: 4 images more in '{first}'; leave --from out"
        assert said in done.stderr
    assert not (tmp_path / "other").exists()


def test_compare_says_which_runs_are_of_other_data(tmp_path):
    runs = []
    for name, seed in (("one", 1), ("two", 2)):
        pictures(tmp_path / name / "data", NAMES, count=5, first=5 * seed)
        runs.append(tiny_run(folder_of(tmp_path / name / "data") | {"seed": seed}, tmp_path / name).path)
        (runs[-1] / "resolved.toml").unlink()  # results alone
    digests = [results(run)["data"]["sha256"][:8] for run in runs]
    _, rows = comparison_rows([RecordedRun(run) for run in runs])
    assert [row[0] for row in rows] == [f"tiny of data {digest}" for digest in digests]


def test_facts_of_images_in_memory_are_of_their_pixels():
    pixels, labels = torch.arange(6 * 12).reshape(6, 3, 2, 2).to(torch.uint8), torch.tensor([0, 1, 0, 2, 1, 2])

    def facts(pixels, labels):
        images = Images(pixels, labels)
        return data_facts(DataSet(images, Images(pixels[:1], labels[:1]), ["a", "b", "c"], [0.5] * 3, [0.5] * 3))

    told = facts(pixels, labels)
    assert told["train"]["images"] == [2, 2, 2]
    assert told["test"]["images"] == [1, 0, 0]
    pixels[4, 0, 0, 0] += 1
    other = facts(pixels, labels)
    assert [a == b for a, b in zip(told["train"]["sha256"], other["train"]["sha256"], strict=True)] == [
        True,
        False,
        True,
    ]
    assert told["sha256"] != other["sha256"]


def test_facts_of_files_are_of_names_and_sizes_wherever_they_lie(tmp_path):
    def facts(root):
        paths = sorted(str(path) for path in root.rglob("*.png"))
        files = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), 8, 8)
        return data_facts(DataSet(files, files.select(torch.arange(0)), ["a"], [0.5] * 3, [0.5] * 3))

    for name in ("a/one/1.png", "a/two/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"12")
    told = facts(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert facts(tmp_path) == told
    (tmp_path / "b" / "one" / "1.png").write_bytes(b"123")
    assert facts(tmp_path) != told
    (tmp_path / "b" / "one" / "1.png").write_bytes(b"12")
    (tmp_path / "b" / "one" / "1.png").rename(tmp_path / "b" / "one" / "3.png")
    assert facts(tmp_path) != told
