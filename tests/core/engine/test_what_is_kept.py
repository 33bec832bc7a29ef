"""What a run leaves holds together, whatever becomes of the disk, of its checkpoints and of the current folder."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.command import lwmfw as command
from helpers.runs import THREE_STEPS, halted

import lwmfw
from lwmfw import Observer, hookimpl, loop
from lwmfw.errors import CheckpointRefused, Interrupted, RunFailed
from lwmfw.record import checkpoint, files
from lwmfw.testing import tiny_recipe, tiny_run

STOPPED = THREE_STEPS | {"observers": [{"use": "stopping"}]}


class Stopping:
    """Stops a run before its third step, as often as it is tried."""

    def __init__(self, options):
        pass

    @hookimpl
    def before_step(self, step):
        if step.index == 3:
            raise KeyboardInterrupt


def stopped(folder):
    with pytest.raises(Interrupted, match="2 finished steps are kept"):
        tiny_run(STOPPED, folder, components=[Observer("stopping", Stopping)])
    return folder / "run"


@pytest.mark.parametrize("lost", [["step-0001", "step-0002"], ["step-0002"]])
def test_checkpoints_that_are_gone_are_missed(lost, tmp_path):
    run = stopped(tmp_path)
    for name in lost:
        shutil.rmtree(run / "checkpoints" / name)
    there = "1" if len(lost) == 1 else "is gone"
    with pytest.raises(
        CheckpointRefused, match=f"results.json has 2 steps, and the newest checkpoint {there}; put the"
    ):
        tiny_run(STOPPED, tmp_path, components=[Observer("stopping", Stopping)])


def test_results_never_say_more_than_can_be_opened(tmp_path, monkeypatch):
    saved = checkpoint.save

    def full(folder, kept):
        if len(kept.results.steps) == 3:
            raise OSError(28, "No space left on device")
        saved(folder, kept)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(RunFailed, match="No space left"):
        tiny_run(THREE_STEPS, tmp_path)
    opened = lwmfw.open_run(tmp_path / "run")
    assert len(opened.results.steps) == 2
    assert not opened.results.complete
    assert opened.model.classes == opened.results.steps[-1].seen == 4


def test_a_run_that_is_killed_behind_a_checkpoint_is_opened_as_far_as_that_and_goes_on(tmp_path, monkeypatch):
    written = files.write_bytes

    def killed(file, content):
        if file.name == "results.json" and b'"step": 2' in content:
            raise KeyboardInterrupt
        written(file, content)

    with monkeypatch.context() as patch:
        patch.setattr("lwmfw.record.summed.write_bytes", killed)
        with pytest.raises(Interrupted):
            tiny_run(THREE_STEPS, tmp_path)
    assert len(lwmfw.open_run(tmp_path / "run").results.steps) == 2
    assert len(tiny_run(THREE_STEPS, tmp_path).results.steps) == 3


@pytest.mark.parametrize("hook", ["before_run", "before_step", "after_epoch"])
def test_a_plug_in_that_changes_the_current_folder_moves_no_file(hook, tmp_path):
    (tmp_path / "elsewhere" / "run").mkdir(parents=True)

    def wander(self):
        os.chdir(tmp_path / "elsewhere")

    wander.__name__ = hook
    wandering = type("Wandering", (), {"__init__": lambda self, options: None, hook: hookimpl(wander)})
    tiny_run({"observers": [{"use": "wandering"}]}, Path(), components=[Observer("wandering", wandering)])
    assert (tmp_path / "run" / "DONE").exists()
    assert list((tmp_path / "elsewhere" / "run").iterdir()) == []


def test_a_run_that_keeps_every_step_goes_on_doing_so(tmp_path, monkeypatch):
    """Whatever resumes it, with or without the word; its recipe is what it would be without."""
    recipe, learn = tiny_recipe(THREE_STEPS, tmp_path), loop.learn

    def until_second(run, step, old):
        if step.index > 2:
            raise KeyboardInterrupt
        return learn(run, step, old)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learn", until_second)
        assert command("run", recipe, "--out", "kept", "--keep-steps").returncode == 130
        assert command("run", recipe, "--out", "usual").returncode == 130
    for name in ("kept", "usual"):
        assert command("resume", name).returncode == 0
    assert [checkpoint.steps(Path(name, "checkpoints")) for name in ("kept", "usual")] == [[1, 2, 3], [1, 3]]
    assert Path("kept/resolved.toml").read_bytes() == Path("usual/resolved.toml").read_bytes()
    assert [lwmfw.open_run("kept").model_at(step).classes for step in (1, 2, 3)] == [2, 4, 6]


def test_a_run_can_be_told_later_to_keep_what_comes(tmp_path):
    run = halted(tmp_path, THREE_STEPS, after=2)
    lwmfw.resume(run, keep_steps=True)
    assert checkpoint.steps(run / "checkpoints") == [1, 2, 3]
