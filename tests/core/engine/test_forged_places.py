"""Checkpoints whose digests fit and whose content does not: refused, as damaged ones are."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.command import lwmfw
from helpers.inside import die_at, run
from helpers.months import pictures

from lwmfw.data.pixels import MAX_PIXELS, Reading
from lwmfw.engine.origin import preprocessing_of
from lwmfw.engine.progress import EVALUATION, READOUTS, place_of
from lwmfw.errors import CheckpointRefused, Interrupted
from lwmfw.record.checkpoint import Checkpoint

RECIPE = {"penalties": [{"use": "ewc"}], "memory": {"budget": "4 exemplars", "select": {"use": "random"}}}
PLACE = {
    "stage": 0, "updates": 1, "epochs": 0, "taken": None, "seconds": 1.5, "parts": {"main": 1.5}, "logged": 10,
    "serial": 3, "epoch": 1, "batch": 1, "rate": 0.1,
}  # fmt: skip
HOSTILE = (None, "1", True, [], {}, -1, 1.5, 10**30, 1e400, float("nan"))
MAY_BE = {"parts": ({},), "taken": (None, 1.5, 10**30), "seconds": (1.5, 10**30), "rate": (-1, 1.5, 10**30)}


def kept(progress):
    return Checkpoint(Path("checkpoints/inside-0002-000003"), {}, {}, None, {"progress": progress})


def test_a_place_is_read():
    assert place_of(kept(PLACE)).model_dump() == PLACE
    assert place_of(kept({key: PLACE[key] for key in list(PLACE)[:8]})).epoch == 1, "where no phase is under way"


@pytest.mark.parametrize("key", PLACE)
def test_what_is_no_place_is_refused(key):
    for value in HOSTILE:
        if value in MAY_BE.get(key, ()):
            continue
        with pytest.raises(CheckpointRefused) as refused:
            place_of(kept(PLACE | {key: value}))
        said = str(refused.value)
        assert said.startswith(f"checkpoints/inside-0002-000003: progress.{key} is "), (value, said)
        assert said.endswith("; restore it, or remove checkpoints/inside-0002-000003 to go on from the end of step 1")


@pytest.mark.parametrize("progress", [None, [], "here", {}, PLACE | {"more": 1}, PLACE | {"stage": EVALUATION + 1}])
def test_so_is_what_says_too_much_or_too_little(progress):
    with pytest.raises(CheckpointRefused, match=r"^checkpoints/inside-0002-000003: progress"):
        place_of(kept(progress))


SHAPE = {"channels": 3, "size": 8, "resize": 0, "mean": [0.5] * 3, "std": [0.2, 0.3, 1], "background": "#102030"}


def test_what_a_checkpoint_says_of_preprocessing_is_read():
    def read(**said):
        return preprocessing_of(Checkpoint(Path("step-0002"), {}, {}, None, {"preprocessing": SHAPE | said}))

    deep = {"values": [0.0, 4095.0], "max_pixels": 10**6}
    assert asdict(read(**deep)) == SHAPE | deep
    assert read(resize=9).reading == Reading("#102030", (), MAX_PIXELS), "older ones say nothing of the rest"


NO_SHAPES = {
    "channels": (*HOSTILE, 0, 4),
    "size": (*HOSTILE, 0, 10**6),
    "resize": (*HOSTILE, 7, 10**6),
    "mean": (*HOSTILE, [0.5] * 2, [1.5] * 3, *([value] * 3 for value in HOSTILE)),
    "std": (*HOSTILE, [0.5] * 2, [0] * 3, *([value] * 3 for value in HOSTILE if value not in (1.5, 10**30))),
    "values": (*(value for value in HOSTILE if value != []), [1], [1, 0], [0, 1e400], [0, 1, 2]),
    "background": (*HOSTILE, "no colour"),
    "max_pixels": (*HOSTILE, 0),
    "more": (1,),
}


@pytest.mark.parametrize("key", NO_SHAPES)
def test_what_is_no_preprocessing_is_refused(key):
    for value in NO_SHAPES[key]:
        with pytest.raises(CheckpointRefused) as refused:
            preprocessing_of(Checkpoint(Path("step-0002"), {}, {}, None, {"preprocessing": SHAPE | {key: value}}))
        said = str(refused.value)
        assert said.startswith("step-0002: preprocessing"), (value, said)
        assert said.endswith(", which no run has written; restore it or start the run anew"), (value, said)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A run that was left behind the second update of its second step."""
    folder = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 2, 0, 2)
        with pytest.raises(Interrupted):
            run(RECIPE, folder, updates=1)
    return folder / "run"


def forge(change, where="inside-*"):
    """Change the state.json of a place or of a step, and make the manifest say so."""
    (place,) = Path("run/checkpoints").glob(where)
    state = json.loads((place / "state.json").read_text())
    change(state)
    (place / "state.json").write_text(json.dumps(state))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["state.json"] = hashlib.sha256((place / "state.json").read_bytes()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))


def progress(**values):
    return lambda state: state["facts"]["progress"].update(values)


def component(name, **values):
    return lambda state: state["components"][name].update(values)


def facts(**values):
    return lambda state: state["facts"].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (progress(stage=1), "stage 1 with 2 updates is no place of this step"),
        (progress(stage=READOUTS), f"stage {READOUTS} with 2 updates is no place of this step"),
        (progress(epoch=9), "epoch 9, batch 2 after 2 updates is no place in 1 epochs of 3 batches"),
        (progress(batch=9, updates=9), "epoch 1, batch 9 after 9 updates is no place in 1 epochs of 3 batches"),
        (progress(batch=1), "epoch 1, batch 1 after 2 updates is no place in"),
        (progress(logged=-1), "progress.logged is -1, which says no place"),
        (progress(logged=10**9), "metrics.jsonl: has "),
        (lambda state: state.update(facts=[]), "of another format"),
        (facts(threads="2"), "of another format"),
        (facts(settings=[1]), "of another format"),
        (lambda state: state.update(components={"ewc": 1}), "of another format"),
        (lambda state: state["components"]["ewc"].clear(), "does not hold a state of ewc (lwmfw "),
        (component("[descent]", groups=[]), "does not hold a state of descent (ValueError: "),
        (component("[descent]", groups=7), "descent (ValueError: groups is of another form)"),
        (component("[descent]", _last_lr=["x"]), "descent (ValueError: _last_lr is of another form)"),
        (component("[descent]", last_epoch=None), "descent (ValueError: last_epoch is of another form)"),
        (component("[descent]", last_epoch=float("inf")), "descent (ValueError: last_epoch is of another form)"),
        (lambda state: state["components"]["[descent]"]["groups"][0].update(lr="x"), "groups is of another form"),
        (component("[terms]", batches="x"), "does not hold a state of terms (ValueError: "),
        (component("[random]", **{"[moment]": 7}), "does not hold a state of random (TypeError: "),
        (component("[terms]", names=[["a"]] * 3), "does not hold a state of terms (ValueError: "),
    ],
)
def test_the_command_refuses_them_in_a_line(change, said, left, tmp_path):
    shutil.copytree(left, tmp_path / "run")
    forge(change)
    done = lwmfw("resume", "run")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert done.stderr.startswith("run/") or str(tmp_path) in done.stderr
    assert said in done.stderr


def test_no_command_believes_another_preprocessing(tmp_path, monkeypatch):
    run({"scenario": {"first": 0, "increment": 0}, "readouts": [{"use": "ncm"}]}, tmp_path)
    pictures(tmp_path / "new", ["gnu"])
    monkeypatch.chdir(tmp_path)
    forge(lambda state: state["facts"]["preprocessing"].update(mean=["x"]), "step-*")
    for verb in (
        ("predict", "run", "new"),
        ("export", "run", "--format", "pt2"),
        ("explain", "run", "new/gnu/0.png"),
        ("extend", "run", "--data", "new"),
        ("run", "tiny.toml", "--from", "run", "--out", "other"),
    ):
        done = lwmfw(*verb)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1), (verb, done.stderr)
        assert "step-0001: preprocessing.mean.0 is 'x', which no run has written; " in done.stderr


def test_a_first_step_of_data_without_its_own_classes_is_not_taken(tmp_path, monkeypatch):
    run({}, tmp_path)
    monkeypatch.chdir(tmp_path)
    forge(lambda state: state["results"]["data"]["class_names"].__setitem__(0, "another"), "step-0001")
    done = lwmfw("run", "tiny.toml", "--from", "run", "--out", "other")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "class 'pattern 0' has come" in done.stderr
