"""Sweeps of real processes: killed as a group, or told to end. Each costs an interpreter and an import of torch."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lwmfw.testing import tiny_recipe

DATA = {"classes": 6, "train_per_class": 16, "test_per_class": 8}
FIRST_STEP = "checkpoints/step-0001/manifest.json"
SIX = ["--seeds", "1,2,3", "--set", "scenario.increment=2,4", "--jobs", "2", "--threads", "1", "--device", "cpu"]


@contextmanager
def sweeping(recipe, out, *options, told=""):
    """A sweep in a process group of its own, which has ended afterwards."""
    command = [sys.executable, "-m", "lwmfw", "sweep", recipe, "--out", out, *options]
    environment = os.environ | {"COLUMNS": "200"}
    with open(told or f"{out}.stderr", "w") as stderr:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(true):
    until = time.monotonic() + 200
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    assert true()


def without_seconds(table):
    """The lines of a table, but for what its runs took."""
    header, *rows = table.splitlines()
    end = header.index("seconds") + len("seconds")
    return [header, *(f"{row[: end - 9]}{row[end:]}" for row in rows)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_was_killed_goes_on_to_the_same_table(tmp_path):
    recipe = tiny_recipe({"data": DATA, "training": {"epochs": 15}}, tmp_path)
    with sweeping(recipe, "whole", *SIX) as process:
        table, _ = process.communicate(timeout=400)
        assert process.returncode == 0, Path("whole.stderr").read_text()

    def done():
        return {path.parent.name for path in Path("killed").glob("*/DONE")}

    def inside():
        return {path.parts[1] for path in Path("killed").glob(f"*/{FIRST_STEP}")} - done()

    with sweeping(recipe, "killed", *SIX) as process:
        wait_until(lambda: len(done()) >= 2 and inside())
        os.killpg(process.pid, signal.SIGKILL)
    finished, begun = done(), inside()
    assert 2 <= len(finished) < 6
    assert begun
    files = [*(f"{name}/results.json" for name in finished), *(f"{name}/{FIRST_STEP}" for name in begun)]
    kept = {file: (Path("killed") / file).stat().st_mtime_ns for file in files}
    with sweeping(recipe, "killed", *SIX) as process:
        again, _ = process.communicate(timeout=400)
    told = Path("killed.stderr").read_text()
    assert process.returncode == 0, told
    assert set(re.findall(r"(\S+): running", told)) == {path.stem for path in Path("killed").glob("*.toml")} - finished
    assert {file: (Path("killed") / file).stat().st_mtime_ns for file in files} == kept, "nothing is computed twice"
    assert without_seconds(again) == without_seconds(table)
    print(f"\nkilled: {len(finished)} of 6 done, {sorted(begun)} inside")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_that_is_told_to_end_has_its_runs_keep_where_they_are(tmp_path):
    recipe = tiny_recipe({"data": DATA, "training": {"epochs": 100_000}}, tmp_path)
    with sweeping(recipe, "made", *SIX) as process:
        wait_until(lambda: len(list(Path("made").glob("*/metrics.jsonl"))) == 2)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.returncode == 143
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # none of the group is left
    assert len(list(Path("made").glob("*/checkpoints/inside-*"))) == 2
    for log in Path("made").glob("*.log"):
        assert "is kept as far as it had come; go on with" in log.read_text().splitlines()[-1]
    assert not list(Path("made").glob("*.failed"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_eight_sweeps_that_begin_at_once_one_runs_and_nothing_is_lost(tmp_path):
    recipe = tiny_recipe({"data": DATA}, tmp_path)
    with ExitStack() as stack:
        all_eight = [stack.enter_context(sweeping(recipe, "made", *SIX, told=f"{i}.stderr")) for i in range(8)]
        tables = [process.communicate(timeout=250)[0] for process in all_eight]
    done = [i for i, process in enumerate(all_eight) if process.returncode == 0]
    busy = {Path(f"{i}.stderr").read_text() for i, process in enumerate(all_eight) if process.returncode == 5}
    assert len(done) == 1
    assert sorted(process.returncode for process in all_eight) == [0, *[5] * 7]
    assert busy == {"made: busy, another sweep is at work there; wait for it or choose another --out\n"}
    assert len(list(Path("made").glob("*/DONE"))) == 6
    assert len(tables[done[0]].splitlines()) > 2
