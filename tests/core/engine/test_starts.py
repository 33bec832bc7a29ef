"""A run goes on from what lies in its directory, whatever became of that, and a start changes no more than it may."""

import pkgutil
import shutil
from itertools import count
from unittest.mock import patch

import pytest
import torch
from helpers.faults import Disk, failing
from helpers.inside import bits, die_at, run
from helpers.plugin_files import penalty_file
from helpers.runs import THREE_STEPS

import lwmfw.loop
from lwmfw.errors import CheckpointRefused, Interrupted, RunFailed
from lwmfw.record import checkpoint

RECIPE = THREE_STEPS | {"training": {"epochs": 1, "batch_size": 8}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a run that was left inside its third step, and the bits of the same one to its end."""
    folder = tmp_path_factory.mktemp("begun")
    told = bits(run(RECIPE, folder / "whole"))
    die_in(3, folder / "left")
    return folder / "left", told


@pytest.fixture
def left(begun, tmp_path):
    return shutil.copytree(begun[0], tmp_path / "left")


def die_in(step, folder, recipe=RECIPE):
    """Have the run in a folder die in a step, when its place behind the third update is kept."""
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, step, 0, 3)
        with pytest.raises(Interrupted):
            run(recipe, folder)


def alike(one, other):
    """Whether two have the same bits."""
    (told, tensors), (told_too, tensors_too) = one, other
    return told == told_too and all(v.equal(tensors_too[key]) for key, v in tensors.items())


def test_a_place_in_a_later_step_is_left_behind(begun, left):
    kept = left / "run" / "checkpoints"
    shutil.rmtree(kept / "step-0002")
    (left / "run" / "results.json").unlink()  # to train the missing steps again
    die_in(2, left)
    assert [path.name.split("-")[1] for path in kept.glob("inside-*")] == ["0002"]
    assert checkpoint.left_inside(kept) == 2
    assert alike(bits(run(RECIPE, left)), begun[1])


class Killed(KeyboardInterrupt):
    """The process ends here."""


class Killing(Disk):
    """The process ends at the nth operation on files: none comes behind it."""

    def __init__(self, folder, at):
        super().__init__(folder, "full", at)

    def step(self, what, place):
        self.count += 1
        if self.count >= self.at:
            raise Killed
        return False


def started(folder, at):
    """The step that a start goes on with, which dies there or at the nth operation on files before; 0: it did there."""
    steps = []

    def learn(run, step, old):
        steps.append(step.index)
        raise Killed

    dying = failing(Killing(folder, at))
    with patch.object(lwmfw.loop, "learn", learn), dying, pytest.raises((Interrupted, Killed)):
        run(RECIPE, folder)
    return sum(steps)


def killed_at_every_operation(folder, damaged, where):
    """Copies of a run, damaged or not, whose start was killed at one operation on files after another."""
    died = True
    for at in count(1):
        left = shutil.copytree(folder, where / str(at))
        if damaged:
            damage(left, damaged)
        died = not started(left, at)
        yield left
        if not died:
            assert at > 5
            return


DAMAGES = {"step-0002": 2, "inside-*": 3, "": 3}
"""What is damaged, and with which step the run goes on then."""


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_start_that_is_killed_at_any_operation_on_files_can_be_made_again(damaged, begun, tmp_path):
    for left in killed_at_every_operation(begun[0], damaged, tmp_path):
        assert started(left, 10**9) == DAMAGES[damaged], left


@pytest.mark.slow
@pytest.mark.parametrize("damaged", DAMAGES)
def test_and_comes_to_the_same_bits(damaged, begun, tmp_path):
    for left in killed_at_every_operation(begun[0], damaged, tmp_path):
        assert alike(bits(run(RECIPE, left)), begun[1]), left


def damage(left, pattern):
    (path,) = (left / "run" / "checkpoints").glob(pattern)
    (path / "state.json").write_bytes(b"")


def files(left):
    return {file: file.read_bytes() for file in (left / "run").rglob("*") if file.is_file()}


def test_a_start_that_is_refused_changes_nothing(left, monkeypatch):
    damage(left, "step-0002")
    there = files(left)
    monkeypatch.setattr(torch, "__version__", "9.9")
    with pytest.raises(CheckpointRefused, match=r"was computed with torch .*, here it would go on with torch 9\.9"):
        run(RECIPE, left)
    assert files(left) == there


STATEFUL = """
count = 0

@hookimpl
def compute_penalty(self, new):
    self.count += 1

def state(self):
    return {"NAME": self.count}

def restore(self, state):
    self.count = state["NAME"]
"""


def test_a_mended_file_that_does_not_take_the_state_back_is_refused_by_its_name_and_changes_nothing(tmp_path):
    (tmp_path / "mended").mkdir()
    penalty_file(tmp_path, STATEFUL.replace("NAME", "count"))
    mended = penalty_file(tmp_path / "mended", STATEFUL.replace("NAME", "updates"))
    die_in(2, tmp_path, RECIPE | {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]})
    there, place = files(tmp_path), tmp_path / "run" / "checkpoints" / "step-0001"
    with pytest.raises(CheckpointRefused) as refused:
        lwmfw.resume(tmp_path / "run", plugins=mended, device="cpu")
    assert str(refused.value).startswith(f"{place}: does not hold a state of probe (")
    assert "restore raised KeyError: 'updates'" in str(refused.value)
    assert str(refused.value).endswith(
        "; mend probe.py, which takes the place of the file that made it, or leave --plugins out"
    )
    assert files(tmp_path) == there


@pytest.mark.parametrize(
    "moment", ["engine.progress.Progress.advance", "record.directory.RunDirectory.log_epoch", "loop.save"]
)
def test_a_run_that_is_moved_while_it_is_at_work_stops_and_goes_on_where_it_is_now(moment, begun, tmp_path):
    owner, name = pkgutil.resolve_name(f"lwmfw.{moment.rpartition('.')[0]}"), moment.rpartition(".")[2]
    act, there, now = getattr(owner, name), tmp_path / "there", tmp_path / "now"

    def acts(*given):
        if there.exists():
            there.rename(now)
        return act(*given)

    with patch.object(owner, name, acts), pytest.raises(RunFailed) as failed:
        run(RECIPE, there)
    assert str(failed.value) == (
        f"{there}/run: resolved.toml is gone, somebody moved the run or removed files while it was at work; if it was "
        "moved, `lwmfw resume` where it is now, or else start anew"
    )
    assert not there.exists()
    assert alike(bits(run(RECIPE, now)), begun[1])
