"""Commands that SIGINT or SIGTERM ends at random moments say so with their exit code, soon, and go on to the same bits.

`SIGNALS=20 pytest -m long tests/whole/test_signals.py -s` sends so many and says when they came.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

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


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_run_that_a_signal_ends_says_so_and_comes_to_the_same_bits(tmp_path):
    method = tables("jpeg")
    recipe = tiny_recipe(method | {"training": method["training"] | {"epochs": 40}}, tmp_path)
    begun = time.monotonic()
    assert started(recipe, tmp_path / "whole").wait() == 0
    seconds, told = time.monotonic() - begun, bits_of(tmp_path / "whole")
    draw, moments, slowest, sent, folder = random.Random(3), Counter(), 0.0, 0, tmp_path / "run-0"
    while sent < SIGNALS:
        process = started(recipe, folder)
        number, send = NUMBERS[sent % 2], draw.choice((os.kill, os.killpg))
        try:
            process.wait(draw.uniform(0, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            sent, begun = sent + 1, time.monotonic()
            send(process.pid, number)
            said, slowest = process.communicate(timeout=60)[1], max(slowest, time.monotonic() - begun)
            # what ends the interpreter while it starts ends it as the signal does, which a shell tells alike
            assert process.returncode in (128 + number, -number), said
            assert process.returncode < 0 or "Traceback" not in said, said
            *_, kept = said.split("; ")[:2] if process.returncode > 0 else ["before lwmfw began"]
            moments[kept] += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        assert bits_of(folder) == told
        folder = tmp_path / f"run-{sent}"
    assert started(recipe, folder).wait() == 0
    assert bits_of(folder) == told
    print(f"\n{sent} signals in runs of {seconds:.0f} s, the last was gone after {slowest:.1f} s: {dict(moments)}")
    assert slowest <= 10
