"""How workers end: with their program, on a signal, however they were started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import lwmfw_process
from helpers.photographs import gone, photographs

from lwmfw.testing import tiny_recipe

ORPHANS = """
import multiprocessing, os, signal, time
from lwmfw.data import workers

def process_of(batch):
    time.sleep(0.1)
    return os.getpid()

if __name__ == "__main__":
    multiprocessing.set_start_method("{method}")
    workers.worker_count = lambda: 2
    with workers.kept_workers():
        print(*{{pid for _, pid in workers.in_workers(process_of, [[n] for n in range(10)], 10)}}, flush=True)
        {end}
"""
ENDS = {"killed": "os.kill(os.getpid(), signal.SIGKILL)", "over": "pass", "failed": "raise SystemExit(7)"}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_no_worker_outlives_its_program(method, end):
    Path("program.py").write_text(ORPHANS.format(method=method, end=ENDS[end]))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == {"killed": -signal.SIGKILL, "over": 0, "failed": 7}[end]
    pids = done.stdout.split()
    assert pids, done.stderr
    assert gone(pids)
    assert "Traceback" not in done.stderr
    assert end == "killed" or not done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_the_run_and_its_workers_is_an_interruption(number, code):
    tables = photographs(training={"epochs": 500, "batch_size": 4}, observers=[{"use": "console"}])
    recipe = tiny_recipe(tables, Path())
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "from lwmfw.data import workers; workers.worker_count = lambda: 2\n"
        "from lwmfw.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "run", str(recipe), "--out", "run", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        said = ""
        while "epoch 2/" not in said:
            said += process.stderr.readline()
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(pids) == 2
        for pid in map(int, [*pids, process.pid]):  # as a batch system does it: the parent hears of it last
            os.kill(pid, number)
            time.sleep(0.3)
        said = process.stderr.read()
        assert process.wait(30) == code, said
        assert gone(pids)
    assert "Traceback" not in said
    assert "interrupted in step 1" in said


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_command_line_starts_workers_either_way(method, monkeypatch):
    recipe = tiny_recipe(photographs(), Path())
    Path("sitecustomize.py").write_text(
        f"import multiprocessing; multiprocessing.set_start_method('{method}', force=True)"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]))
    done = lwmfw_process("run", recipe, "--out", "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert Path("run/DONE").exists()
