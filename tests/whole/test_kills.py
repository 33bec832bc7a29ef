"""Runs that are killed at random moments, with SIGKILL, come to the bits of one that was left alone.

`KILLS=200 pytest -m slow tests/whole/test_kills.py -s` kills so many and says where; 15 are killed otherwise.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from multiprocessing import get_context

import pytest
from helpers.bits import bits_of
from helpers.methods import METHODS, tables

from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import EVALUATION, MEMORY, READOUTS, SaveEvery
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe

RECIPES = ("lwm", "podnet", "jpeg", "mnemonics", "ewc", "carried over", "der", "den", "si", "muc")
KILLS = int(os.environ.get("KILLS", "15"))
STAGES = {READOUTS: "read-outs", MEMORY: "memory", EVALUATION: "evaluation"}
SHARES = [(name, KILLS * (n + 1) // len(RECIPES) - KILLS * n // len(RECIPES)) for n, name in enumerate(RECIPES)]


def to_its_end(recipe, folder):
    """Run, or go on, in a process of its own."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
    prepared = prepared_run(assemble(load_recipe(recipe)), "cpu", None)
    prepared.save_every = SaveEvery(updates=4)
    record(prepared, folder / "run", "auto")


def started(recipe, folder):
    process = get_context("fork").Process(target=to_its_end, args=(recipe, folder))
    process.start()
    return process


def where(folder):
    """What a run that was killed goes on from."""
    if list(folder.glob("run/checkpoints/*.tmp")):
        return "while its place was written"
    inside = sorted(folder.glob("run/checkpoints/inside-*/state.json"))
    if not inside:
        return "the last finished step"
    at = json.loads(inside[-1].read_text())["facts"]["progress"]
    return STAGES.get(at["stage"]) or f"phase {at['stage']}, {'an update' if at['updates'] else 'its beginning'}"


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("name", "kills"), [share for share in SHARES if share[1]])
def test_a_killed_run_comes_to_the_same_bits(name, kills, tmp_path):
    draw, places, differing = random.Random(name), Counter(), []
    method = tables(name)
    recipe = tiny_recipe(method | {"training": method["training"] | {"epochs": 6}}, tmp_path)
    (tmp_path / "whole").mkdir()
    begun = time.monotonic()
    whole = started(recipe, tmp_path / "whole")
    whole.join()
    seconds, told = time.monotonic() - begun, bits_of(tmp_path / "whole" / "run")
    killed = 0
    for number in itertools.count():
        if killed >= kills:
            break
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        while killed < kills:
            process = started(recipe, folder)
            process.join(draw.uniform(0.05, 1) * seconds)
            if process.exitcode is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
            places[where(folder)] += 1
        started(recipe, folder).join()
        if bits_of(folder / "run") != told:
            differing.append(folder.name)
    print(f"\n{name}: {killed} killed, of {seconds:.1f} s: {dict(places)}")
    assert differing == []


def test_what_is_killed_is_shipped():
    assert set(RECIPES) <= set(METHODS)
    assert sum(share for _, share in SHARES) == KILLS
