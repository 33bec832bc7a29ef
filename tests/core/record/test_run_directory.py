"""Run directories: one owner, whole files, and no trace of an unfinished step."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from helpers.command import lwmfw

from lwmfw.errors import CheckpointRefused, DiskFailed, RunBusy, UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.record import files
from lwmfw.record.directory import open_directory
from lwmfw.record.files import write_text
from lwmfw.record.owner import own
from lwmfw.record.reading import RecordedRun
from lwmfw.record.summed import write_summed
from lwmfw.testing import tiny_recipe


@pytest.fixture
def resolved(tmp_path):
    return load_recipe(tiny_recipe({}, tmp_path))


def test_a_second_owner_is_told_that_the_directory_is_busy(resolved, tmp_path):
    directory, known = open_directory(resolved, tmp_path / "run", "auto")
    assert not known
    with pytest.raises(RunBusy, match=f"run: busy, owned by process {os.getpid()} on ") as error:
        open_directory(resolved, tmp_path / "run", "auto")
    assert error.value.exit_code == 5
    directory.close()
    open_directory(resolved, tmp_path / "run", "auto")[0].close()


def test_a_run_that_has_come_and_gone_before_a_directory_is_owned_is_seen(resolved, tmp_path, monkeypatch):
    other = load_recipe(tiny_recipe({"seed": 2}, tmp_path))

    def late(path, *way):
        monkeypatch.undo()
        directory, known = open_directory(other, path, "auto")
        assert not known
        directory.start(other)
        directory.close()
        return own(path, *way)

    monkeypatch.setattr("lwmfw.record.directory.own", late)
    with pytest.raises(UserError, match=r"run: holds a run of another recipe \(seed differs\)"):
        open_directory(resolved, tmp_path / "run", "auto")
    open_directory(other, tmp_path / "run", "must")[0].close()


def test_a_killed_owner_owns_nothing(resolved, tmp_path):
    (tmp_path / "run").mkdir()
    code = """
import sys, filelock
lock = filelock.FileLock("run/.lock")
lock.acquire()
print("mine", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        try:
            assert owner.stdout.readline() == b"mine\n"
            with pytest.raises(RunBusy, match="run: busy"):
                open_directory(resolved, tmp_path / "run", "auto")
        finally:
            owner.kill()
    open_directory(resolved, tmp_path / "run", "auto")[0].close()


def test_a_refused_directory_is_not_kept_locked(resolved, tmp_path):
    directory, _ = open_directory(resolved, tmp_path / "run", "auto")
    directory.start(resolved)
    directory.close()
    # the error is kept, and with it whatever its frames hold: ownership is given up, not collected as garbage
    with pytest.raises(UserError, match="holds an unfinished run") as error:
        open_directory(resolved, tmp_path / "run", "never")
    again, known = open_directory(resolved, tmp_path / "run", "auto")
    assert known
    assert error.value.exit_code == 2
    again.close()


def test_what_is_written_is_whole_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "results.json"
    for text in ("one\n", "ä longer text\n", ""):
        write_text(file, text)
        assert file.read_bytes() == text.encode()
        assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    write_text(file, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFailed, match=rf"^{file}: No space left on device, \d+ bytes are free there; make room"):
        write_text(file, "new and longer")
    assert file.read_text() == "old"


def test_the_epochs_of_an_unfinished_step_are_forgotten(resolved, tmp_path):
    directory, _ = open_directory(resolved, tmp_path / "run", "auto")
    directory.forget_epochs_after(1)  # there are none yet
    rows = [{"step": step, "epoch": epoch} for step in (1, 2) for epoch in (1, 2)]
    for row in rows:
        directory.log_epoch(row)
    file = directory.path / "metrics.jsonl"
    with file.open("a") as stream:
        stream.write('{"step": 1, "ep')  # the process ended while it wrote
    directory.forget_epochs_after(1)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows[:2]
    directory.close()


def test_lines_of_no_epoch_are_forgotten_too(resolved, tmp_path):
    directory, _ = open_directory(resolved, tmp_path / "run", "auto")
    directory.log_epoch({"step": 1, "epoch": 1})
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b'{bad\n[1]\n3\n{"step": "1"}\n{"epoch": 1}\n\xff\xfe\n')
    directory.forget_epochs_after(1)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1, "epoch": 1}\n'


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe", b"[[", b"", b"plugins = []"], ids=["bytes", "no TOML", "empty", "another"]
)
def test_a_damaged_recipe_is_refused_in_the_same_words_by_resume_and_run(damage, tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    directory, _ = open_directory(load_recipe(recipe), tmp_path / "run", "auto")
    directory.start(load_recipe(recipe))
    directory.close()
    stated = (tmp_path / "run" / "SHA256SUMS").read_text()[:64]
    (tmp_path / "run" / "resolved.toml").write_bytes(damage)
    resumed, run = lwmfw("resume", tmp_path / "run"), lwmfw("run", recipe, "--out", tmp_path / "run")
    assert resumed.returncode == run.returncode == 4
    assert resumed.stderr == run.stderr
    digest = hashlib.sha256(damage).hexdigest()
    said = f"changed, sha256 is {digest}, SHA256SUMS says {stated}; restore it or start the run anew\n"
    assert run.stderr == f"{tmp_path}/run/resolved.toml: {said}"


def test_a_recipe_of_another_version_is_refused_though_its_digest_fits(resolved, tmp_path):
    directory, _ = open_directory(resolved, tmp_path / "run", "auto")
    directory.start(resolved)
    directory.close()
    write_summed(tmp_path / "run" / "resolved.toml", "plugins = 3\n")
    with pytest.raises(CheckpointRefused, match=r"resolved\.toml: damaged \(.*\); restore it or start the run anew$"):
        _ = RecordedRun(tmp_path / "run").tables
