"""Commands that SIGINT or SIGTERM ends at random moments say so with their exit code, soon, and go on to the same bits.

`SIGNALS=20 pytest -m long tests/whole/test_signals.py -s` sends so many and says when they came.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.bits import bits_of
from helpers.command import ENVIRONMENT
from helpers.methods import tables

from lwmfw.testing import tiny_recipe

SIGNALS = int(os.environ.get("SIGNALS", "20"))
NUMBERS = (signal.SIGINT, signal.SIGTERM)


def heard():
    """What a background job or nohup ignores is heard."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


def started(recipe, folder):
    command = [sys.executable, "-m", "lwmfw", "run", str(recipe), "--out", str(folder)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT, preexec_fn=heard,
        start_new_session=True,
    )  # fmt: skip


def used(process):
    """Seconds of the processor that a process has had."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended(process, send, number):
    """Send a signal; what the process says, and what it has taken to end: on the clock, and of the processor."""
    begun, before, children = time.monotonic(), used(process), os.times()
    send(process.pid, number)
    said = process.communicate(timeout=60)[1]
    now = os.times()
    had = now.children_user + now.children_system - children.children_user - children.children_system
    return said, time.monotonic() - begun, had - before


def to_its_end(recipe, folder):
    process = started(recipe, folder)
    said = process.communicate()[1]
    assert process.returncode == 0, said


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_run_that_a_signal_ends_says_so_and_comes_to_the_same_bits(tmp_path):
    method = tables("jpeg")
    recipe = tiny_recipe(method | {"training": method["training"] | {"epochs": 25}}, tmp_path)
    begun = time.monotonic()
    to_its_end(recipe, tmp_path / "whole")
    seconds, told = time.monotonic() - begun, bits_of(tmp_path / "whole")
    draw, moments, slowest, sent = random.Random(3), Counter(), np.zeros(2), 0
    folders = (tmp_path / f"run-{number}" for number in itertools.count())
    folder = next(folders)
    while sent < SIGNALS:
        process = started(recipe, folder)
        number, send = NUMBERS[sent % 2], draw.choice((os.kill, os.killpg))
        try:
            said = process.communicate(timeout=draw.uniform(0, 0.8) * seconds)[1]
        except subprocess.TimeoutExpired:
            said, *took = ended(process, send, number)
            slowest = np.maximum(slowest, took)
        if process.returncode != 0:  # it has not ended before the signal came, or with it
            sent += 1
            assert process.returncode in (128 + number, -number), said
            assert "Traceback" not in said or process.returncode < 0
            starting = process.returncode < 0  # the interpreter, which a signal ends; shells tell that alike
            moments["before lwmfw began" if starting else said.splitlines()[-1].split("; ")[1]] += 1
        if (folder / "DONE").exists():
            assert bits_of(folder) == told
            folder = next(folders)
    to_its_end(recipe, folder)
    assert bits_of(folder) == told
    took = f"after {slowest[0]:.1f} s at most, {slowest[1]:.1f} s of the processor"
    print(f"\n{sent} signals in runs of {seconds:.0f} s, gone {took}: {dict(moments)}")
    assert slowest[1] <= 10, "on the clock a busy machine says nothing"
