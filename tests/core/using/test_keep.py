"""A run that is made of others is stopped while it is written: the same command makes it, whatever was left."""

import os
import shutil
import signal
from unittest.mock import patch

import pytest
import torch
from helpers.bits import bits_of
from helpers.command import lwmfw
from helpers.faults import Disk, failing
from helpers.months import extend
from torchvision.models import resnet18

from lwmfw.engine.opened import OpenedRun
from lwmfw.using.keep import keep
from lwmfw.using.merge import merged


class Stopped(Disk):
    """A disk at whose nth operation the process is killed, or interrupted."""

    def step(self, what, place):
        self.count += 1
        if self.count == self.at:
            if self.kind == "killed":
                os._exit(9)
            raise KeyboardInterrupt
        return False


def made(run, folder, kind="", at=0):
    """Write a run into a folder, stopped at an operation; returns how many there were."""
    disk = Stopped(folder, kind, at)
    with failing(disk):
        keep(run, folder)
    return disk.count


def stopped(run, folder, kind, at):
    """As `made`, in a process of its own where that dies."""
    if kind == "killed":
        child = os.fork()
        if not child:
            made(run, folder, kind, at)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    else:
        with pytest.raises(KeyboardInterrupt):
            made(run, folder, kind, at)


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    """Runs that learned apart."""
    alone = tmp_path_factory.mktemp("alone") / "run"
    extend(place / "base" / "run", place / "may", alone)
    return place / "april-run", alone


@pytest.mark.parametrize("kind", ["killed", "interrupted"])
def test_a_run_that_was_stopped_at_any_file_is_made_by_the_same_command(kind, two, tmp_path):
    run = merged(*map(OpenedRun, two))
    count = made(run, tmp_path / "whole")
    told = bits_of(tmp_path / "whole")
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*"))
    assert count > 20
    for at in range(1, count + 1):
        folder = tmp_path / f"at-{at}"
        stopped(run, folder, kind, at)
        finished = (folder / "DONE").exists()
        if not finished:
            made(run, folder)
        assert bits_of(folder) == told
        assert finished or sorted(path.relative_to(folder) for path in folder.rglob("*")) == files


def test_what_another_merge_has_left_half_written_is_no_part_of_the_new_one(place, two, tmp_path):
    """A run of more steps was to be made there: its checkpoint is not the newest one of the run that is made now."""
    run = merged(*map(OpenedRun, two))
    made(run, tmp_path / "whole")
    checkpoints = tmp_path / "run" / "checkpoints"
    finish = patch("lwmfw.record.directory.RunDirectory.finish", side_effect=KeyboardInterrupt)
    with finish, pytest.raises(KeyboardInterrupt):
        made(run, tmp_path / "run")
    (newest,) = checkpoints.iterdir()
    shutil.copytree(newest, checkpoints / "step-0009")
    made(run, tmp_path / "run")
    assert bits_of(tmp_path / "run") == bits_of(tmp_path / "whole")


@pytest.mark.parametrize("verb", ["merge", "retract", "adopt"])
def test_the_command_that_was_interrupted_while_it_wrote_is_given_again(verb, two, place, tmp_path):
    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "it.pth")
    small = ["--model", "resnet18", "--set", "data.size=32", "--set", "data.decode=once"]
    given = {
        "merge": ["merge", *two],
        "retract": ["retract", place / "may-run", "--data", place / "may"],
        "adopt": ["adopt", "--weights", tmp_path / "it.pth", "--data", place / "months", *small],
    }[verb]
    with patch("lwmfw.record.checkpoint.save", side_effect=lambda *_: signal.raise_signal(signal.SIGTERM)):
        first = lwmfw(*given, "--out", tmp_path / "run")
    assert first.returncode == 143
    assert first.stderr.endswith("interrupted; no file is left half written; run the same command again\n")
    done = lwmfw(*given, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert OpenedRun(tmp_path / "run").finished
