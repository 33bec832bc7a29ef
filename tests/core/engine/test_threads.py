"""How many threads a run computes with: as told, kept with the run, and no reason to tell runs apart."""

import shutil
import tomllib
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from helpers.command import lwmfw

from lwmfw.engine import threads
from lwmfw.record.reading import RecordedRun
from lwmfw.testing import tiny_recipe


@pytest.fixture(autouse=True)
def _counted(monkeypatch):
    """Numbers of threads are as they are set, and take no core of other tests."""
    count = [1]
    monkeypatch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])


def computed_with(run="run"):
    """The threads that resolved.toml and the last checkpoint of a run state."""
    stated = tomllib.loads((Path(run) / "resolved.toml").read_text())["training"]["threads"]
    return stated, RecordedRun(run).checkpoint().facts["threads"]


@pytest.fixture
def unfinished(tmp_path):
    """A run of two threads whose second step is to be learned."""
    recipe = tiny_recipe({}, tmp_path)
    assert lwmfw("run", recipe, "--out", "run", "--threads", "2").returncode == 0
    (Path("run") / "DONE").unlink()
    shutil.rmtree("run/checkpoints/step-0002")
    Path("run/results.json").unlink()
    return recipe


def test_a_run_computes_with_the_threads_it_is_told_and_keeps_their_number(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    assert lwmfw("run", recipe, "--out", "run", "--threads", "2").returncode == 0
    assert computed_with() == (2, 2)
    assert lwmfw("run", "run/resolved.toml", "--out", "again").returncode == 0
    assert computed_with("again") == (2, 2)
    assert lwmfw("run", recipe, "--out", "one").returncode == 0
    assert computed_with("one") == (1, 1)  # as tests are given
    compared = lwmfw("compare", "run", "one")
    assert compared.stderr == "one: the same recipe and seed as run (tiny); name one of them\n"  # no variants


def test_a_run_goes_on_with_the_threads_it_has_or_with_those_it_is_told(unfinished):
    assert lwmfw("run", unfinished, "--out", "run").returncode == 0
    assert computed_with() == (2, 2)


def test_resume_takes_another_number(unfinished):
    assert lwmfw("resume", "run", "--threads", "1").returncode == 0
    assert computed_with() == (1, 1)


@pytest.mark.parametrize("stage", ["lwmfw.engine.run.Run.sharing_features", "lwmfw.loop.learn"])
def test_the_number_that_resume_has_taken_stays_when_it_is_stopped_and_resumed_again(unfinished, stage):
    """Whether a place that has it was kept meanwhile, or not yet."""
    with patch(stage, side_effect=KeyboardInterrupt):
        assert lwmfw("resume", "run", "--threads", "1", "--save-every", "1 update").returncode == 130
    assert lwmfw("resume", "run").returncode == 0
    assert computed_with() == (1, 1)
    assert RecordedRun("run").results.drift == [{"step": 2, "key": "threads", "was": 2, "is": 1}]


def test_a_first_step_of_another_number_is_refused_where_one_is_asked_for(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    assert lwmfw("run", recipe, "--out", "one").returncode == 0
    refused = lwmfw("run", recipe, "--out", "run", "--from", "one", "--threads", "2")
    assert refused.returncode == 2
    assert "was computed with 1 threads, here it would go on with 2; leave --from or --threads out" in refused.stderr


@pytest.mark.parametrize(
    ("quota", "count"), [("150000 100000", 1), ("200000 100000", 2), ("50000 100000", 1), ("max 100000", 4), (None, 4)]
)
def test_by_default_no_more_threads_than_a_container_may_use(quota, count, tmp_path, monkeypatch):
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    torch.set_num_threads(4)
    threads.use_threads(0)
    assert torch.get_num_threads() == count
