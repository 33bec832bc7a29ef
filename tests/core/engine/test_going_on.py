"""Going on after an interruption, wherever it came, and what stands in a directory meanwhile."""

import hashlib
import json
import shutil
from unittest.mock import patch

import pytest
import torch
from helpers import command
from helpers.plugin_files import penalty_file
from helpers.runs import THREE_STEPS, halted, interrupted

import lwmfw
import lwmfw.loop
from lwmfw import Observer, Penalty, hookimpl
from lwmfw.errors import CheckpointRefused, Interrupted, RunFailed, UserError
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe, tiny_run

LWM = {"penalties": [{"use": "L_D"}, {"use": "L_AD"}]}


def epochs(path):
    """Step and epoch of every line of metrics.jsonl."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["epoch"]) for row in rows]


def comparable(path):
    """The results of a run without what a clock decides."""
    results = json.loads((path / "results.json").read_text())
    for step in results["steps"]:
        del step["train_seconds"], step["part_seconds"]
    return results


def weights(run):
    return [value.clone() for value in run.run.model.state_dict().values()]


def same(ones, others):
    return all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_run_resumed_at_a_step_boundary_has_the_bits_of_an_uninterrupted_one(after, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = tiny_run(THREE_STEPS | LWM, tmp_path / "whole")
    cut = interrupted(tmp_path / "cut", THREE_STEPS | LWM, after)
    expected, actual = comparable(whole.path), comparable(cut.path)
    expected["providers"]["interrupting"] = "test"
    assert actual == expected
    assert same(weights(cut), weights(whole))
    assert epochs(cut.path) == [(1, 1), (2, 1), (3, 1)]


def test_the_state_of_a_component_survives_an_interruption(tmp_path):
    class Counting:
        def __init__(self, options):
            self.steps, self.total = [], torch.zeros(())

        @hookimpl
        def compute_penalty(self):
            return None

        @hookimpl
        def after_step(self, step):
            self.steps.append(step.index)
            self.total += step.index

        def state(self):
            return {"steps": self.steps, "total": self.total}

        def restore(self, state):
            self.steps, self.total = state["steps"], state["total"]

    class Extra(Counting):
        @hookimpl
        def before_run(self, run):
            run.model.extras["memory"] = torch.nn.Linear(2, 1)

        @hookimpl
        def compute_penalty(self, model):
            return {"extra": model.extras["memory"](torch.ones(2)).square().sum()}

    for name, factory in (("counting", Counting), ("extra", Extra)):
        (tmp_path / name).mkdir()
        components = [Penalty(name, factory)]
        recipe = THREE_STEPS | {"penalties": [{"use": name}]}

        def cut_short(run, step, *rest, _learn=lwmfw.loop.learn):
            if step.index == 3:
                raise KeyboardInterrupt
            return _learn(run, step, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lwmfw.loop, "learn", cut_short)
            with pytest.raises(Interrupted):
                tiny_run(recipe, tmp_path / name, components=components)
        resumed = tiny_run(recipe, tmp_path / name, components=components)
        component = resumed.run.assembly.components[name].instance
        assert component.steps == [1, 2, 3]
        assert component.total == 6
        (tmp_path / f"{name}-whole").mkdir()
        whole = tiny_run(recipe, tmp_path / f"{name}-whole", components=components)
        assert same(weights(resumed), weights(whole))


def test_done_is_written_after_the_last_checkpoint(tmp_path, monkeypatch):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device", "tensors.safetensors")

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: full_disk() if len(a[1].results.steps) == 2 else save(*a))
    with pytest.raises(RunFailed, match=r"tensors.safetensors: No space left on device"):
        tiny_run(LWM, tmp_path)
    assert not (tmp_path / "run" / "DONE").exists()
    monkeypatch.undo()
    tiny_run(LWM, tmp_path)
    assert (tmp_path / "run" / "DONE").exists()
    assert epochs(tmp_path / "run") == [(1, 1), (2, 1)]


def test_a_run_cut_short_before_done_is_finished_without_training_again(tmp_path):
    first = tiny_run(LWM, tmp_path)
    (first.path / "DONE").unlink()
    before = comparable(first.path)
    tiny_run(LWM, tmp_path)
    assert (first.path / "DONE").exists()
    assert comparable(first.path) == before
    assert epochs(first.path) == [(1, 1), (2, 1)]


def test_a_start_cut_short_does_not_block_the_directory(tmp_path):
    (tmp_path / "run" / "plugins").mkdir(parents=True)
    (tmp_path / "run" / "recipe.toml").write_text("half")
    assert tiny_run({}, tmp_path).results.complete


def test_another_arithmetic_is_not_gone_on_in(tmp_path, monkeypatch):
    run = tiny_run({"training": {"precision": "auto"}}, tmp_path)
    (run.path / "DONE").unlink()
    monkeypatch.setattr("lwmfw.engine.build.computes_bf16", lambda device: not run.run.model.bf16)
    with pytest.raises(CheckpointRefused, match=r"was computed in .* on cpu, here it would go on in .* on cpu; resume"):
        tiny_run({"training": {"precision": "auto"}}, tmp_path)


def test_a_model_with_a_plug_ins_own_parts_opens_without_them(tmp_path):
    (tmp_path / "extra.py").write_text(
        "import torch\nfrom lwmfw import Observer, hookimpl\n"
        "class Extra:\n"
        "    def __init__(self, options): pass\n"
        "    @hookimpl\n"
        "    def before_run(self, run): run.model.extras['memory'] = torch.nn.Linear(2, 1)\n"
        "@hookimpl\n"
        "def register_components(): yield Observer('extra', Extra)\n"
    )
    run = tiny_run({"plugins": ["extra.py"], "observers": [{"use": "extra"}]}, tmp_path)
    opened = lwmfw.open_run(run.path).model
    for name, value in opened.state_dict().items():
        assert torch.equal(value, run.run.model.state_dict()[name])
    assert "extras.memory.weight" in run.run.model.state_dict()


def test_after_run_does_not_hide_what_went_wrong(tmp_path):
    class Failing:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self):
            raise ValueError("the cause")

        @hookimpl
        def after_run(self):
            raise ValueError("and more")

    with pytest.raises(RunFailed, match="before_step raised ValueError: the cause") as failed:
        tiny_run({"observers": [{"use": "failing"}]}, tmp_path, components=[Observer("failing", Failing)])
    assert any("after_run raised ValueError: and more" in note for note in failed.value.__notes__)


@pytest.mark.parametrize("fault", ["new.features.mul_(2)", "new.logits.sum().backward()"])
def test_a_penalty_that_spoils_the_gradient_fails_the_run_in_words(fault, tmp_path):
    penalty_file(
        tmp_path, f"@hookimpl\ndef compute_penalty(self, new):\n    {fault}\n    return {{'t': new.logits.mean()}}"
    )
    with pytest.raises(RunFailed, match=r"the gradient of bce \+ t cannot be computed: .*in step 2, epoch 1, batch 1"):
        tiny_run({"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}, tmp_path)


def test_a_stage_that_is_not_there_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="layer: 4 wanted, but the backbone has 3 stages"):
        tiny_run({"penalties": [{"use": "L_AD", "layer": 4}]}, tmp_path)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def penalty(factor):
    return f"@hookimpl\ndef compute_penalty(self, new):\n    return {{'t': {factor} * new.logits.mean()}}"


def test_a_mended_plug_in_file_takes_the_place_of_the_copy_that_failed(tmp_path):
    broken = penalty_file(tmp_path, penalty("nothing"))
    recipe = {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}
    before = hashlib.sha256(broken.read_bytes()).hexdigest()
    with pytest.raises(RunFailed, match="name 'nothing' is not defined"):
        tiny_run(recipe, tmp_path)
    path = tmp_path / "run"
    mended = penalty_file(tmp_path, penalty(0.5))
    after = hashlib.sha256(mended.read_bytes()).hexdigest()
    done = command.lwmfw("resume", path, "--plugins", mended)
    assert done.returncode == 0, done.stderr
    assert f"plugins/probe.py; sha256 was {before}, is {after}\n" in done.stderr
    results = comparable(path)
    assert results["providers"]["probe"] == f"probe.py sha256:{after}"
    assert results["mended"] == [{"steps": 1, "providers": {"probe": f"probe.py sha256:{before}"}}]
    assert epochs(path) == [(1, 1), (2, 1)]
    # the run is whole: what it keeps is the file that it has ended with
    assert (path / "plugins" / "probe.py").read_bytes() == mended.read_bytes()
    assert command.lwmfw("check", path / "resolved.toml").returncode == 0
    (tmp_path / "anew").mkdir()
    penalty_file(tmp_path / "anew", penalty(0.5))
    assert comparable(tiny_run(recipe, tmp_path / "anew").path)["steps"] == results["steps"]


def test_a_resumption_that_was_stopped_behind_the_copy_of_a_mended_file_says_how_to_repeat_it(tmp_path):
    penalty_file(tmp_path, penalty(1))
    path = halted(tmp_path, {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]})
    mended = penalty_file(tmp_path, penalty(0.5))
    with patch("lwmfw.record.directory.RunDirectory._write_resolved", side_effect=KeyboardInterrupt):
        assert command.lwmfw("resume", path, "--plugins", mended).returncode == 130
    plain = command.lwmfw("resume", path)
    assert plain.returncode == 2
    said = f"; restore the file, or go on with a mended one: `lwmfw resume {path} --plugins FILE`\n"
    assert plain.stderr.endswith(said)
    assert command.lwmfw("resume", path, "--plugins", mended).returncode == 0


def test_a_file_that_is_none_of_the_runs_is_refused(tmp_path):
    penalty_file(tmp_path, penalty(1))
    path = halted(tmp_path, {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]})
    other = penalty_file(tmp_path, penalty(2), name="prob.py")
    done = command.lwmfw("resume", path, "--plugins", other)
    assert done.returncode == 2
    assert "has no plug-in file of that name; did you mean 'probe.py'?" in done.stderr


def test_an_unfinished_run_shares_its_first_step(tmp_path):
    path = halted(tmp_path, {})
    (tmp_path / "whole").mkdir()
    whole = tiny_run(LWM, tmp_path / "whole").path
    (path / "results.json").unlink()  # it was killed before it was written
    done = command.lwmfw("run", tiny_recipe(LWM, tmp_path), "--from", path, "--out", tmp_path / "shared")
    assert done.returncode == 0, done.stderr
    assert comparable(tmp_path / "shared")["steps"] == comparable(whole)["steps"]


def test_a_first_step_is_that_of_the_plug_in_file_that_computed_it(tmp_path):
    acting = "acts_first = True\n" + penalty("FACTOR")
    recipe = {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}
    penalty_file(tmp_path, acting.replace("FACTOR", "1"), needs="set()")
    path = halted(tmp_path, recipe)
    mended = penalty_file(tmp_path, acting.replace("FACTOR", "2"), needs="set()")
    done = command.lwmfw("resume", path, "--plugins", mended)
    assert done.returncode == 0, done.stderr
    for more in ([], ["--dry-run"]):
        done = command.lwmfw("run", tiny_recipe(recipe, tmp_path), "--from", path, "--out", tmp_path / "shared", *more)
        assert done.returncode == 2
        assert "its first step was trained in another way (penalties.probe.provider differs)" in done.stderr


TIMED = ("metrics.jsonl", "results.json", "env.json", "owner", "manifest.json", "state.json", "SHA256SUMS")
"""Files in which a clock, the command line or a process are told."""


def files(path):
    """What lies in a run directory, and the contents of what is the same in every run."""
    found = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(f.relative_to(path)): f.name in TIMED or f.read_bytes() for f in found}


def test_a_run_that_was_cut_short_leaves_the_files_of_an_uninterrupted_one(tmp_path, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = tiny_run(THREE_STEPS, tmp_path / "whole").path
    removed = checkpoint.remove
    # an older checkpoint could not be removed, and writing was cut short in several places
    monkeypatch.setattr(checkpoint, "remove", lambda path: path.name.endswith(".tmp") and removed(path))
    path = halted(tmp_path / "cut", THREE_STEPS, after=2)
    shutil.copytree(path / "checkpoints" / "step-0002", path / "checkpoints" / "step-0009.tmp")
    (path / "attention").mkdir()
    for name in ("results.json.tmp", "attention/step-1.safetensors.tmp"):
        (path / name).write_text("half")
    tiny_run(THREE_STEPS, tmp_path / "cut")
    assert (path / "checkpoints" / "step-0002").exists()
    assert not list(path.rglob("*.tmp"))
    (path / "DONE").unlink()
    monkeypatch.undo()
    tiny_run(THREE_STEPS, tmp_path / "cut")
    assert files(path) == files(whole)


def test_what_could_not_be_removed_at_the_last_step_is_removed_at_the_end(tmp_path, monkeypatch):
    removed, busy = checkpoint.remove, ["step-0002"]

    def busy_once(path):
        if path.exists() and path.name in busy:
            busy.remove(path.name)
        else:
            removed(path)

    monkeypatch.setattr(checkpoint, "remove", busy_once)
    run = tiny_run(THREE_STEPS, tmp_path)
    assert not busy
    assert sorted(each.name for each in (run.path / "checkpoints").iterdir()) == ["step-0001", "step-0003"]
