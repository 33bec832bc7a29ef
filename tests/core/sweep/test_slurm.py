"""Cells as jobs of a cluster; submitit's own executor of local processes stands in for Slurm."""

import sys
import time

import pytest
from helpers.command import lwmfw

from lwmfw.errors import UserError
from lwmfw.sweep.slurm import start_on_cluster
from lwmfw.testing import tiny_recipe


def ended(job):
    until = time.monotonic() + 60
    while (code := job.poll()) is None and time.monotonic() < until:
        time.sleep(0.05)
    return code


@pytest.mark.slow
def test_a_job_runs_a_command_line_and_comes_to_its_exit_code(tmp_path):
    pytest.importorskip("submitit")
    start, log = start_on_cluster(tmp_path / "slurm", 0, "local"), tmp_path / "a.log"
    said = "import os, sys; print(os.getcwd()); print(sys.argv[1:], file=sys.stderr); sys.exit(3)"
    job = start([sys.executable, "-c", said, "a b", "$c;"], log)
    assert ended(job) == 3
    assert log.read_text() == f"{tmp_path}\n['a b', '$c;']\n"
    assert ended(start([sys.executable, "-c", ""], log)) == 0


@pytest.mark.long  # submitit looks again every 15 s
def test_a_job_that_is_cancelled_has_been_interrupted(tmp_path):
    pytest.importorskip("submitit")
    log = tmp_path / "a.log"
    job = start_on_cluster(tmp_path / "slurm", 0, "local")([sys.executable, "-c", "import time; time.sleep(100)"], log)
    while not log.exists():
        time.sleep(0.05)
    assert job.poll() is None
    job.terminate()
    assert ended(job) == 143


def test_without_submitit_or_slurm_it_is_said_what_to_do(tmp_path, monkeypatch):
    recipe = tiny_recipe({}, tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    done = lwmfw("sweep", recipe, "--slurm")
    assert (done.returncode, done.stderr) == (2, '--slurm: needs submitit; pip install "lwmfw[slurm]"\n')
    assert not (tmp_path / "sweeps").exists()
    monkeypatch.undo()
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--slurm: there is no Slurm here, srun is not found; leave --slurm out"):
        start_on_cluster(tmp_path / "slurm", 2)
    assert not (tmp_path / "slurm").exists()
