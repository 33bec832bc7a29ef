"""A run that would go on otherwise than it was computed is refused, unless that is allowed and results.json says so."""

import json
import shutil

import pytest
import torch
from helpers.command import lwmfw
from helpers.runs import THREE_STEPS, halted

import lwmfw as framework
from lwmfw.components import Provider
from lwmfw.engine import prepare
from lwmfw.engine.drift import KEYS
from lwmfw.engine.run import Run
from lwmfw.errors import UserError


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return halted(tmp_path_factory.mktemp("begun"), THREE_STEPS)


@pytest.fixture
def run(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run")


def another_torch(patch):
    patch.setattr(torch, "__version__", "9.9")
    return {"key": "torch", "is": "9.9"}


def another_version(patch):
    record = Provider.record.fget
    patch.setattr(Provider, "record", property(lambda self: f"{record(self)}.post1"))
    return {"key": "plugins", "was": f"lwmfw {framework.__version__}", "is": f"lwmfw {framework.__version__}.post1"}


def another_arithmetic(patch):
    patch.setattr(Run, "arithmetic", "bf16 on cuda")
    return {"key": "arithmetic", "was": "fp32 on cpu", "is": "bf16 on cuda"}


@pytest.mark.parametrize("differing", [another_torch, another_version, another_arithmetic])
def test_what_differs_is_named_and_may_be_allowed(differing, run, monkeypatch):
    told = differing(monkeypatch)
    refused = lwmfw("resume", run)
    assert refused.returncode == 4
    assert told["is"] in refused.stderr
    assert refused.stderr.startswith(f"{run}/checkpoints/step-0001: was computed ")
    assert refused.stderr.endswith(f", or go on all the same with --allow-drift {told['key']}\n")
    other = "data" if told["key"] != "data" else "torch"
    assert lwmfw("resume", run, "--allow-drift", other).returncode == 4
    done = lwmfw("resume", run, "--allow-drift", other, "--allow-drift", told["key"])
    assert done.returncode == 0, done.stderr
    (drift,) = json.loads((run / "results.json").read_text())["drift"]
    assert drift.items() >= ({"step": 2} | told).items()
    assert json.loads((run / "env.json").read_text())["allow_drift"] == sorted([other, told["key"]])


def test_what_was_allowed_once_is_asked_no_more_where_it_was_kept(run, monkeypatch):
    another_torch(monkeypatch)
    framework.resume(run, allow_drift=["torch"], device="cpu")
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints" / "step-0001")
    again = framework.resume(run, device="cpu")
    assert [drift["step"] for drift in again.drift] == [2]


def test_a_number_of_threads_that_was_asked_for_is_recorded(run, monkeypatch):
    count = [1]
    monkeypatch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])
    assert lwmfw("resume", run, "--threads", "2").returncode == 0
    assert json.loads((run / "results.json").read_text())["drift"] == [{"step": 2, "key": "threads", "was": 1, "is": 2}]


def test_another_order_of_classes_is_never_allowed(run, monkeypatch):
    order = prepare.class_order
    monkeypatch.setattr(prepare, "class_order", lambda *given: order(*given)[::-1])
    refused = lwmfw("resume", run, *[word for key in KEYS for word in ("--allow-drift", key)])
    assert refused.returncode == 4
    assert "has learned from other data than are there now: the classes come in another order; put" in refused.stderr


@pytest.mark.parametrize("key", ["classes", "torhc", ""])
def test_nothing_else_can_be_allowed(key, run):
    with pytest.raises(UserError, match=f"--allow-drift {key}: cannot be allowed"):
        framework.resume(run, allow_drift=[key])
