"""Runs of many steps and of many classes: what is written after a step does not grow faster than what it says."""

import ctypes
import gc
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import THREE_STEPS, halted

from lwmfw import Observer, hookimpl, open_run
from lwmfw.testing import tiny_run


def test_the_matrices_of_many_classes_lie_beside_the_results(tmp_path, monkeypatch):
    """Those of the last step, and of steps of few classes, are in results.json."""
    (tmp_path / "plain").mkdir()
    plain = tiny_run(THREE_STEPS, tmp_path / "plain").results
    monkeypatch.setattr("lwmfw.engine.going_on.MATRIX_CLASSES", 2)
    halted(tmp_path / "large", THREE_STEPS, after=2)
    done = tiny_run(THREE_STEPS, tmp_path / "large")
    told = json.loads((done.path / "results.json").read_text())["steps"]
    whole = [step.confusion for step in plain.steps]
    assert [step["confusion"] for step in told] == [step.confusion for step in done.results.steps]
    assert [step["confusion"] for step in told] == [whole[0], {}, whole[2]]
    assert json.loads((done.path / "confusion" / "step-2.json").read_text()) == whole[1]
    assert len(list((done.path / "confusion").iterdir())) == 1
    assert open_run(done.path).results == done.results


def long(classes, increment, budget, test=4):
    """A recipe of many small steps."""
    data = {"use": "synthetic", "classes": classes, "train_per_class": 4, "test_per_class": test, "size": 8}
    return {
        "data": data,
        "scenario": {"first": increment, "increment": increment},
        "memory": {"budget": budget, "select": {"use": "random"}},
        "training": {"epochs": 1, "batch_size": 16},
        "readouts": [{"use": "cnn"}, {"use": "nme"}],
        "observers": [{"use": "measured"}],
    }


def measured(recipe, folder):
    """Of each step: seconds, resident megabytes, open files, and bytes of what was written.

    What nobody needs any more is given back to the system before it is counted.
    """
    rows = []

    class Measured:
        def __init__(self, options):
            self.began = time.perf_counter()

        @hookimpl
        def before_step(self, run):
            gc.collect()
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            newest = max(run.directory.path.glob("checkpoints/step-*/state.json"), default=None)
            written = (run.directory.path / "results.json", newest)
            sizes = {file.name: file.stat().st_size for file in written if file and file.is_file()}
            now = time.perf_counter()
            row = {"seconds": now - self.began, "resident": resident, "files": len(os.listdir("/proc/self/fd"))}
            rows.append(row | sizes)
            self.began = now

    done = tiny_run(recipe, folder, components=[Observer("measured", Measured)])
    assert done.results.complete
    assert multiprocessing.active_children() == []
    return rows


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_hundred_steps_leak_nothing(tmp_path):
    """Behind the hundredth step, up to which results have all confusion matrices."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.apply(measured, (long(200, 1, "200 exemplars", test=1), tmp_path))[100:]
    slope = 10 * np.polyfit(range(len(rows)), [row["resident"] for row in rows], 1)[0]
    seconds = [round(float(np.mean([row["seconds"] for row in end])), 2) for end in (rows[:30], rows[-30:])]
    print(f"\n{slope:.2f} MB in ten steps, {seconds} s a step, {rows[-1]}")
    assert slope <= 1
    assert len({row["files"] for row in rows}) == 1


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_classes_in_ten_steps_write_what_they_say(tmp_path):
    rows = measured(long(1000, 100, "1000 exemplars"), tmp_path)[1:]
    print("\n", *rows, sep="\n")
    for number, row in enumerate(rows, 1):
        # two matrices of the last step and of that of 100 classes, at most four bytes a number; the rest is small
        most = 2 * 4 * ((100 * number) ** 2 + 100**2) + 100_000
        assert row["results.json"] <= most
        assert row["state.json"] <= most
