"""A disk that is full or fails, at every operation of a run: what was kept before is whole, and the run goes on.

`pytest -m long tests/whole/test_disk.py -s` fails each in turn, in every way.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.bits import bits_of
from helpers.faults import KINDS, Disk, failing
from helpers.methods import tables

import lwmfw
from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import SaveEvery
from lwmfw.errors import DiskFailed
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe


def run(recipe, folder):
    """Run, or go on, and keep the place every other update."""
    prepared = prepared_run(assemble(load_recipe(recipe)), "cpu", None)
    prepared.save_every = SaveEvery(updates=2)
    record(prepared, folder, "auto")


def small(folder):
    """A recipe with exemplars and two steps of few updates."""
    folder.mkdir(exist_ok=True)
    few = tables("icarl")
    few["data"] |= {"classes": 4, "train_per_class": 8, "test_per_class": 2, "size": 8}
    few["memory"] |= {"budget": "4 exemplars"}
    return tiny_recipe(few | {"training": {"batch_size": 8, "epochs": 1}}, folder)


def tried(recipe, folder, disk, told):
    """A run on such a disk, and then on one that is mended; returns whether the first one has ended."""
    try:
        with failing(disk):
            run(recipe, folder)
        ended = True
    except DiskFailed as failure:
        ended, said, exit_code, cause = False, str(failure), failure.exit_code, failure.__cause__
    if not ended:
        assert re.fullmatch(rf"{folder}[^\n]*: [^\n]+, \d+ bytes are free there; make room [^\n]+", said)
        assert (exit_code, cause) == (1, None), "told in a line"
        if (folder / "checkpoints").exists() and checkpoint.steps(folder / "checkpoints"):
            opened = lwmfw.open_run(folder)
            assert opened.model.classes == opened.results.steps[-1].seen
    if not (folder / "DONE").exists():
        run(recipe, folder)
    assert bits_of(folder) == told, disk.failed
    assert not list(folder.rglob("*.tmp"))
    return ended


def operations(recipe, folder):
    disk = Disk(folder, "full")
    with failing(disk):
        run(recipe, folder)
    return disk.count


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recipe, how many operations a run of it is, and the bits that it comes to."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = small(folder)
    return recipe, operations(recipe, folder / "run"), bits_of(folder / "run")


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_disk_that_fills_up_costs_nothing_that_was_kept(share, whole, tmp_path):
    recipe, count, told = whole
    disk = Disk(tmp_path / "run", "full", at=int(share * count), lasting=True)
    assert not tried(recipe, tmp_path / "run", disk, told)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_may_fail(kind, whole, tmp_path):
    recipe, count, told = whole
    places = {n: tmp_path / f"at-{n}" for n in range(1, count + 1)}
    ended = [tried(recipe, place, Disk(place, kind, at=n), told) for n, place in places.items()]
    print(f"\n{kind}: {len(ended)} operations failed in turn, {ended.count(False)} ended the run in words")


@pytest.mark.slow
def test_a_limit_of_file_size_is_told_and_the_run_goes_on_without_it(tmp_path):
    recipe = small(tmp_path)
    command = [sys.executable, "-m", "lwmfw", "run", recipe, "--out", tmp_path / "run"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(
        rf"{tmp_path}/run/\S+: File too large, \d+ bytes are free there; make room or mend the disk, and run it again",
        done.stderr.splitlines()[-1],
    )
    assert "Traceback" not in done.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]


FULL = """
mount -t tmpfs -o size=1m none full
python -m lwmfw run tiny.toml --out full/run 2> said.txt
echo $? > code.txt
cp -r full/run left
mount -o remount,size=64m full
python -m lwmfw resume full/run && cp -r full/run done
"""
"""In a namespace of its own, whose mounts nobody else sees and which go with it."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_file_system_that_is_full_costs_nothing_and_one_that_has_room_again_is_gone_on_with(tmp_path):
    apart = ["unshare", "-rm", "bash", "-c"]
    allowed = shutil.which("unshare") and subprocess.run([*apart, "mount -t tmpfs none /mnt"], check=False)
    if not allowed or allowed.returncode:
        pytest.skip("needs unshare, and leave to mount in it")
    few = tables("icarl")
    few["backbone"] |= {"width": 10}  # two checkpoints have room, a third has not
    recipe = tiny_recipe(few | {"training": {"batch_size": 8, "epochs": 1}}, tmp_path)
    run(recipe, tmp_path / "whole")
    (tmp_path / "full").mkdir()
    path = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([*apart, FULL], cwd=tmp_path, env=path, check=True, capture_output=True)
    assert (tmp_path / "code.txt").read_text() == "1\n"
    (said,) = (tmp_path / "said.txt").read_text().splitlines()
    place = f"{tmp_path}/full/run/checkpoints/step-0003.tmp"
    assert re.fullmatch(rf"{place}/\S+: No space left on device, \d+ bytes are free there; make room .*", said)
    opened = lwmfw.open_run(tmp_path / "left")
    assert opened.model.classes == opened.results.steps[-1].seen
    assert bits_of(tmp_path / "done") == bits_of(tmp_path / "whole")
