"""tensorboard, trackio, wandb, mlflow: what they store is read back by other means than those that wrote it."""

import json
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers.bits import bits_of
from helpers.command import lwmfw
from helpers.results import results_of
from helpers.runs import THREE_STEPS

from lwmfw import Observer, UserError, hookimpl
from lwmfw.errors import Interrupted
from lwmfw.recipe.catalogue import discover
from lwmfw.stopping import STOP
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins._installed import require
from lwmfw_plugins.observers._tracked import Point, Tracked, environment, epoch_point, recorded, settings, step_point
from lwmfw_plugins.observers.mlflow import database

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
RECIPE = {"training": {"epochs": 2}, "memory": {"budget": "2 per class", "select": {"use": "random"}}}
ROW = {"terms": {"bce": 1.0}, "lr": 0.1, "images_per_s": 5.0}


@pytest.fixture(params=TRACKERS)
def tracker(request):
    if find_spec(request.param) is None:
        pytest.skip(f"needs lwmfw[{request.param}]")
    return request.param


def test_an_epoch_is_a_point_of_its_terms_its_rate_and_its_pace():
    values = {"terms/bce": 1.0, "training/lr": 0.1, "training/images_per_s": 5.0}
    assert epoch_point(7, {"bce": 1.0}, 0.1, 5.0) == Point("epoch", 7, values)


def test_a_step_is_a_point_of_what_was_measured_behind_it():
    results = results_of([[0.5], [0.25, 0.75]])
    assert step_point(results.after(1)) == Point(
        "step", 1, {"accuracy/cnn": 0.5, "average_accuracy/cnn": 0.5, "memory/bytes": 0.0, "memory/exemplars": 0.0}
    )
    second = step_point(results).values
    assert second["average_accuracy/cnn"] == 0.5
    assert second["forgetting/cnn"] == 0.25


def test_epochs_are_counted_over_the_run_those_of_a_step_that_another_run_has_trained_among_them():
    results = results_of([[0.5], [0.5, 0.5]])
    results.steps[0].epochs, results.steps[1].epochs = 3, 2
    rows = [{"step": 2} | ROW, {"step": 2} | ROW, {"step": 3} | ROW]
    places = [(point.axis, point.at) for point in recorded(rows, results)]
    assert places == [("step", 1), ("epoch", 4), ("epoch", 5), ("step", 2), ("epoch", 6)]


def test_settings_have_the_names_that_set_gives_them():
    tables = {"seed": 1, "data": {"use": "a"}, "penalties": [{"as": "L", "use": "L_D", "weight": 2.0}], "plugins": []}
    expected = {
        "seed": 1, "data.use": "a", "penalties.L.as": "L", "penalties.L.use": "L_D", "penalties.L.weight": 2.0,
        "plugins": "[]",
    }  # fmt: skip
    assert dict(settings(tables)) == expected


def test_tables_that_have_no_names_are_text_in_settings():
    tables = {"observers": [{"as": "a", "rules": [{"at": 1}, {"at": 2, "as": "x"}]}]}
    expected = {"observers.a.as": "a", "observers.a.rules": "[{'at': 1}, {'at': 2, 'as': 'x'}]"}
    assert dict(settings(tables)) == expected


def test_the_environment_is_what_it_was(monkeypatch):
    monkeypatch.setenv("LWMFW_ONE", "mine")
    monkeypatch.delenv("LWMFW_TWO", raising=False)
    with suppress(KeyError), environment(LWMFW_ONE="a", LWMFW_TWO="b"):
        assert (os.environ["LWMFW_ONE"], os.environ.pop("LWMFW_TWO")) == ("a", "b")
        raise KeyError
    assert (os.environ["LWMFW_ONE"], "LWMFW_TWO" in os.environ) == ("mine", False)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_library_that_is_missing_is_told_before_anything_is_trained(name, tmp_path):
    recipe = tiny_recipe({"observers": [{"use": name}]}, tmp_path)
    with patch("lwmfw_plugins._installed.find_spec", lambda module: None):
        done = lwmfw("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.endswith(f'{name}: {name} is not installed; pip install "lwmfw[{name}]"\n')
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_no_library(tmp_path, monkeypatch):
    (tmp_path / "tracks").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="tracks is not installed"):
        require("tracks")
    require("anything", "json", "torch")


def read(tracker, run):
    """(tag, at) -> values, of everything that is stored of a run."""
    stored = defaultdict(list)
    for tag, at, value in READERS[tracker](run):
        stored[tag, at].append(value)
    return stored


def read_tensorboard(run):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for file in (run / "tensorboard").glob("events.*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams" or value.tag.startswith("_hparams_"):
                    continue
                yield value.tag, event.step, value.tensor.float_val[0]


def read_trackio(run):
    with sqlite3.connect(run / "trackio" / "lwmfw.db") as database:
        for step, metrics in database.execute("select step, metrics from metrics order by id"):
            for tag, value in json.loads(metrics).items():
                yield tag, step, value


def read_mlflow(run):
    with sqlite3.connect(run / "mlflow" / "mlflow.db") as database:
        yield from database.execute(
            "select key, step, value from metrics join runs using (run_uuid) where lifecycle_stage = 'active'"
        )


def read_wandb(run):
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            at = row.pop("epoch", None) or row.pop("step")
            yield from ((tag, at, value) for tag, value in row.items() if not tag.startswith("_"))


def wandb_records(run):
    """What a .wandb file holds, which is closed by another process a moment after the run has ended."""
    for _ in range(100):
        records = list(wandb_log(run))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.1)
    return records


def wandb_log(run):
    """The file's records so far: it is a log of blocks as LevelDB has it, behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = (run / "wandb" / "wandb").glob("offline-run-*/run-*.wandb")
    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts, at = parts + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


READERS = {
    "tensorboard": read_tensorboard, "trackio": read_trackio, "wandb": read_wandb, "mlflow": read_mlflow,
}  # fmt: skip


def seed_in(tracker, run):
    """The recipe's seed, as it is stored beside the points."""
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        (file,) = (run / "tensorboard").glob("events.*")
        stored = [value for event in EventFileLoader(str(file)).Load() for value in event.summary.value]
        (begun,) = [value for value in stored if value.tag == "_hparams_/session_start_info"]
        data = HParamsPluginData.FromString(begun.metadata.plugin_data.content)
        return data.session_start_info.hparams["seed"].number_value
    if tracker == "trackio":
        with sqlite3.connect(run / "trackio" / "lwmfw.db") as database:
            ((config,),) = database.execute("select config from configs")
        return json.loads(config)["seed"]
    if tracker == "mlflow":
        with sqlite3.connect(run / "mlflow" / "mlflow.db") as database:
            query = (
                "select value from params join runs using (run_uuid) where key = 'seed' and lifecycle_stage = 'active'"
            )
            ((value,),) = database.execute(query)
        return int(value)
    configs = [record.run.config.update for record in wandb_records(run) if record.WhichOneof("record_type") == "run"]
    return next(json.loads(item.value_json) for item in configs[0] if item.key == "seed")


def told(run):
    """The same as the run's own record has it."""
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    points = list(recorded(rows, run.results))
    assert [(p.axis, p.at) for p in points[:3]] == [("epoch", 1), ("epoch", 2), ("step", 1)]
    return {(tag, point.at): [pytest.approx(value)] for point in points for tag, value in point.values.items()}


def observed(name):
    return RECIPE | THREE_STEPS | {"observers": [{"use": "halting"}, {"use": name}, {"use": "halting", "as": "behind"}]}


class Halting:
    """Ends a run at some places, each once: before or behind the observer in question."""

    places = ()

    def __init__(self, options):
        pass

    def halt(self, *place):
        if place in Halting.places:
            Halting.places = [each for each in Halting.places if each != place]
            if place[-1] == "kept":
                STOP.wished = True
            else:
                raise KeyboardInterrupt

    @hookimpl
    def after_epoch(self, step, epoch, name):
        self.halt(name, step.index, epoch, "kept")
        self.halt(name, step.index, epoch, "lost")

    @hookimpl
    def after_step(self, step, name):
        self.halt(name, step.index, "lost")


HALTING = [Observer("halting", Halting)]


@pytest.mark.slow
def test_a_run_that_is_interrupted_anywhere_leaves_the_points_of_one_that_was_not(tracker, tmp_path, monkeypatch):
    places = [("behind", 1, 1, "kept"), ("halting", 2, 1, "kept"), ("behind", 2, 2, "lost"), ("behind", 3, "lost")]
    monkeypatch.setattr(Halting, "places", places)
    for _ in places:
        with pytest.raises(Interrupted):
            tiny_run(observed(tracker), tmp_path, components=HALTING)
    tiny_run(observed(tracker), tmp_path, components=HALTING)
    (tmp_path / "run" / "DONE").unlink()  # killed where nothing is left to learn, and not all is told
    if tracker != "mlflow":  # which has its database open
        shutil.rmtree(tmp_path / "run" / tracker)
    run = tiny_run(observed(tracker), tmp_path, components=HALTING)
    assert read(tracker, run.path) == told(run)
    assert seed_in(tracker, run.path) == 1
    assert len({at for tag, at in told(run) if tag == "terms/bce"}) == 6


@pytest.fixture
def trackers():
    """Tables of all trackers that can be tried."""
    found = [{"use": name} for name in TRACKERS if find_spec(name)]
    return found or pytest.skip("needs lwmfw[tensorboard], or another tracker")


@pytest.mark.slow
def test_numbers_are_the_same_with_and_without(trackers, tmp_path):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    tracked = tiny_run(RECIPE | {"observers": trackers}, tmp_path / "with").path
    bare = tiny_run(RECIPE, tmp_path / "without").path
    one, two = bits_of(tracked), bits_of(bare)
    assert one["results"]["providers"].items() > two["results"]["providers"].items()
    one["results"]["providers"] = two["results"]["providers"]
    assert one == two


def made_tracker(name):
    record = next(c for c in discover().components if c.name == name)
    return record.made_by(record.options())


@pytest.mark.slow
def test_global_generators_are_left_alone(tracker, tmp_path):
    made = made_tracker(tracker)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    made.begin(Tracked("tiny-run", "0" * 32, tmp_path, {"seed": 1}))
    made.put(epoch_point(1, {"∇ bce+1": 1.0}, 0.1, 1.0))  # whatever a stranger calls a term
    made.end(True)
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert before[0] == after[0]
    assert all(np.array_equal(one, two) for one, two in zip(before[1], after[1], strict=True))
    assert torch.equal(before[2], after[2])


def process():
    """What a tracker may change of its process: variables, but for the one that wandb's service has, and levels."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(("WANDB_", "MLFLOW_"))}
    variables.pop("WANDB_SERVICE", None)
    return variables, {name: logging.getLogger(name).level for name in ("", "mlflow", "alembic")}


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["well", "in an exception"])
def test_the_process_is_left_as_it_was(tracker, ends, tmp_path, monkeypatch):
    tracked_run = RECIPE | {"observers": [{"use": tracker}, {"use": "halting", "as": "behind"}]}
    import_module({"trackio": "trackio.sqlite_storage"}.get(tracker, tracker))  # what it sets itself stays
    logging.getLogger("alembic").setLevel(logging.ERROR)  # as somebody may wish
    before = process()
    monkeypatch.setattr(Halting, "places", [] if ends == "well" else [("behind", 1, 1, "lost")])
    with nullcontext() if ends == "well" else pytest.raises(Interrupted):
        tiny_run(tracked_run, tmp_path, components=HALTING)
    assert (tmp_path / "run" / tracker).is_dir()
    assert process() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a?b", "a#b%20c", "%3F ä+;[:]@"])
def test_mlflow_writes_into_the_run_directory_whatever_its_name(name, tmp_path):
    pytest.importorskip("mlflow")
    sqlalchemy, folder = pytest.importorskip("sqlalchemy"), tmp_path / name / "mlflow"
    folder.mkdir(parents=True)
    if not sqlalchemy.__version__ >= "2.1" and "?" in name:
        pytest.skip("needs SQLAlchemy 2.1")
    made = made_tracker("mlflow")
    made.begin(Tracked("tiny-run", "0" * 32, folder, {"seed": 1}))
    made.put(epoch_point(1, {"bce": 1.0}, 0.1, 1.0))
    made.end(True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read("mlflow", tmp_path / name)["training/lr", 1] == [0.1]


@pytest.mark.slow
def test_mlflow_refuses_a_directory_that_its_database_cannot_be_told(tmp_path, monkeypatch):
    url = pytest.importorskip("sqlalchemy").engine.URL
    monkeypatch.setattr(url, "render_as_string", lambda made: f"{made.drivername}:///{made.database}")  # as before 2.1
    with pytest.raises(UserError, match=r"name a run directory without \?"):
        database(tmp_path / "a?b" / "mlflow.db")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_they_keep_to_the_run_directory_and_need_no_network(trackers, tmp_path):
    apart = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs unshare, and leave to use it")
    (tmp_path / "home").mkdir()
    tiny_recipe({"observers": trackers}, tmp_path)
    contrary = {"WANDB_MODE": "online", "TRACKIO_SPACE_ID": "a/b", "MLFLOW_TRACKING_URI": "http://x.invalid"}
    variables = os.environ | contrary | {"HOME": str(tmp_path / "home")}
    variables["MPLCONFIGDIR"] = str(tmp_path / "run" / "matplotlib")  # of the report's pictures
    command = [*apart, sys.executable, "-m", "lwmfw", "run", "tiny.toml", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "report in run/report.html\n")
    assert done.stdout.startswith("accuracy")
    for tracker in trackers:
        assert read(tracker["use"], tmp_path / "run")["training/lr", 1] == [pytest.approx(0.1)]
    assert not list((tmp_path / "home").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"home", "run", "tiny.toml"}
