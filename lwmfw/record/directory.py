"""The run directory: one owner, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock

from lwmfw.errors import CheckpointRefused, RunFailed, UserError, command, shown
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.places import places
from lwmfw.record import checkpoint
from lwmfw.record.files import (
    DISK,
    LARGE,
    bounded,
    disk_failure,
    told_of_disk,
    told_of_reading,
    write_bytes,
    write_text,
)
from lwmfw.record.identity import first_difference, identity_of, portable
from lwmfw.record.links import is_inside, refuse_ways_out
from lwmfw.record.owner import WAIT, own
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results, StepResult, accuracy_csv
from lwmfw.record.summed import SUMS, write_summed

Resume = Literal["auto", "never", "must"]
_PLUGIN_FOLDER = "plugins"


class RunDirectory:
    """A locked run directory. Use `open_directory`.

    Attributes:
        path: as a person named it, for messages; files go where that was when the run began.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._home = path.absolute()  # a plug-in may change the current folder
        self._lock = lock

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self._home / "checkpoints"

    @property
    def recorded_steps(self) -> int:
        """How many finished steps results.json tells of; 0: there is none."""
        file = self._home / "results.json"
        return len(RecordedRun(file).results.steps) if file.is_file() else 0

    def what_is_kept(self) -> str:
        """What an interruption has left, in words, and how to go on."""
        if RecordedRun(self._home).finished:
            return f"the run has ended, {command('compare', self.path)} shows its results"
        if not RecordedRun(self._home).exists:
            return "nothing was begun; start it again"
        kept, inside = max(checkpoint.steps(self.checkpoints), default=0), checkpoint.left_inside(self.checkpoints)
        many = (
            "no finished step is" if kept == 0 else "1 finished step is" if kept == 1 else f"{kept} finished steps are"
        )
        said = f"{many} kept" + f", and step {inside} as far as it had come" * bool(inside)
        if inside and not kept:
            said = f"step {inside} is kept as far as it had come"
        return f"{said}; go on with {command('resume', self.path)}"

    def start(self, resolved: Resolved) -> None:
        """Write what the run is made of, before it runs."""
        self.keep_sources(resolved)
        self._write_resolved(resolved)  # last: it makes the folder a run directory

    def keep_sources(self, resolved: Resolved) -> None:
        """Write the recipe as given, and copies of its plug-in files."""
        self._keep_plugins(resolved)
        write_text(self._home / "recipe.toml", resolved.source.text)

    def _keep_plugins(self, resolved: Resolved) -> None:
        for file in resolved.catalogue.files:
            with told_of_disk(self._home / _PLUGIN_FOLDER):
                (self._home / _PLUGIN_FOLDER).mkdir(exist_ok=True)
            write_text(self._home / _PLUGIN_FOLDER / file.name, file.read_text(encoding="utf-8"))

    def write_recipe(self, name: str, resolved: Resolved, head: str) -> None:
        """Write a recipe under a comment, every default written out, that runs with the plug-in files kept here."""
        write_text(self._home / name, head + _written_out(resolved, resolved.recipe.training.threads))

    def _write_resolved(self, resolved: Resolved) -> None:
        write_summed(self._home / "resolved.toml", _written_out(resolved, torch.get_num_threads()))

    def restate(self, resolved: Resolved) -> None:
        """Have resolved.toml say how a run goes on: its threads, where its files lie now, plug-in files as mended."""
        tables = RecordedRun(self._home).tables
        threads = tables.get("training", {}).get("threads")
        if threads != torch.get_num_threads() or identity_of(tables) != identity_of(resolved.tables()):
            self._keep_plugins(resolved)
            self._write_resolved(resolved)

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """env.json: the machine and the software that made the numbers."""
        everything = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": _processor(),
            "argv": sys.argv[1:],
            **facts,
            "packages": _packages(),
        }
        write_text(self._home / "env.json", json.dumps(everything, indent=1) + "\n")

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; raises as `check_is_there`."""
        self.check_is_there()
        self._append("metrics.jsonl", row)

    def log_trial(self, row: Mapping[str, Any]) -> None:
        """Append one line to search.jsonl."""
        self._append("search.jsonl", row)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        file = self._home / name
        with told_of_disk(file), file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far: `step`, `phase`, `epoch`, `terms`, `lr` and `images_per_s` of each."""
        file = self._home / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    @property
    def tables(self) -> dict[str, Any]:
        """The recipe as plain tables, every default written out."""
        return RecordedRun(self._home).tables

    def forget_epochs_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that belong to an unfinished step, and what is no line of it."""
        file = self._home / "metrics.jsonl"
        if file.exists():
            with told_of_reading(file):
                lines = bounded(file, LARGE).decode(errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and 0 < _step_of(line) <= step]
            write_text(file, "".join(kept))

    def logged(self) -> int:
        """Bytes of metrics.jsonl, which are on the disk."""
        file = self._home / "metrics.jsonl"
        if not file.exists():
            return 0
        with told_of_disk(file), file.open("rb") as stream:
            os.fsync(stream.fileno())
            return os.fstat(stream.fileno()).st_size

    def check_log(self, size: int, place: Path) -> None:
        """See that metrics.jsonl has as many bytes as when a place inside a step was kept.

        Raises:
            CheckpointRefused: it has fewer.
        """
        there = self.logged()
        if there < size:
            raise CheckpointRefused(
                f"{self.path}/metrics.jsonl: has {there} bytes, and {size} when the run was kept; put it back as it "
                f"was, or remove {self.path}/checkpoints/{place.name} to go on from the last finished step"
            )

    def forget_log_after(self, size: int) -> None:
        """Cut metrics.jsonl back to so many bytes."""
        file = self._home / "metrics.jsonl"
        if file.exists() and file.stat().st_size > size:
            with told_of_disk(file):
                os.truncate(file, size)

    def write_results(self, results: Results) -> None:
        """results.json and its tidy form accuracy.csv."""
        write_summed(self._home / "results.json", results.to_text())
        write_text(self._home / "accuracy.csv", accuracy_csv({"": results}))

    def write_confusion(self, result: StepResult) -> None:
        """The confusion matrices of a step in a file of their own."""
        self.write(f"confusion/step-{result.step}.json", json.dumps(result.confusion).encode())

    def write(self, name: str, content: bytes) -> None:
        """A file of a component's own, such as "attention/step-1.safetensors"; whole or absent.

        Raises:
            ValueError: the name leads out of the directory.
        """
        file = self._inside(name)
        with told_of_disk(file):
            file.parent.mkdir(exist_ok=True)
        write_bytes(file, content)

    def folder(self, name: str) -> Path:
        """A folder of a component's own, for a library that writes by itself; an absolute path.

        Raises:
            ValueError: the name leads out of the directory.
        """
        folder = self._inside(name)
        with told_of_disk(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def _inside(self, name: str) -> Path:
        if not is_inside(self._home, self._home / name):
            raise ValueError(f"{shown(name)!r} leads out of the run directory; write a file in it")
        return self._home / name

    def remove_unfinished(self) -> None:
        """Remove files that were not written to the end, here and in the folders of components."""
        for file in [*self._home.glob("*.tmp"), *self._home.glob("*/*.tmp")]:
            with suppress(OSError):  # a folder, or one that cannot be removed, which costs no run
                file.unlink()

    def keep_every_step(self) -> None:
        """Have the checkpoint of no step removed from now on, also when the run is resumed."""
        checkpoint.keep_every_step(self.checkpoints)

    def check_is_there(self) -> None:
        """See that this is still the directory of the run.

        Raises:
            RunFailed: it was moved or emptied meanwhile; what is written here afterwards is no whole run.
        """
        if not RecordedRun(self._home).exists:
            raise RunFailed(
                f"{self.path}: resolved.toml is gone, somebody moved the run or removed files while it was at work; if "
                "it was moved, `lwmfw resume` where it is now, or else start anew"
            )

    def finish(self) -> None:
        """DONE: results and last checkpoint are on the disk; raises as `check_is_there`."""
        self.check_is_there()
        write_text(self._home / "DONE", "")

    def close(self) -> None:
        """Give up ownership."""
        self._lock.release()


def open_directory(
    resolved: Resolved, out: Path | None, resume: Resume, *, renewed: bool = False
) -> tuple[RunDirectory, bool]:
    """Own the directory of a run and say whether it holds an unfinished run of the same resolved recipe.

    Args:
        resolved: the recipe to be run.
        out: the directory; by default `runs/<recipe>/<time>-s<seed>`.
        resume: `auto` continues an unfinished run, `never` refuses to, `must` insists on one.
        renewed: whether the recipe is that of the run with other places and plug-in files.

    Raises:
        UserError: the directory holds a finished run, another recipe's run, or something else.
        CheckpointRefused: something in it leads out of it.
        RunBusy: another process owns it.
    """
    recipe = resolved.recipe
    path = out or unused(recipe.name, recipe.seed)
    try:
        _look(path, resume)
        path.mkdir(parents=True, exist_ok=True)
        directory = RunDirectory(path, own(path, "wait for it" if renewed else WAIT))
    except OSError as error:
        if error.errno in DISK:
            raise disk_failure(path, error) from None
        way = "have it made writable" if renewed else "choose another --out"  # which `resume` has not
        raise UserError(f"{shown(str(path))}: cannot be used: {error.strerror}; {way}") from error
    try:
        known = _look(path, resume)  # again: somebody may have begun a run, and ended, since it was looked at
        if known:
            _check_resumable(directory, resolved, resume, renewed)
    except BaseException:
        directory.close()
        raise
    return directory, known


def set_aside(path: Path, folder: Path) -> None:
    """Move the directory of a run into a folder, under a name that is free there.

    Raises:
        RunBusy: another process owns it.
    """
    names = [path.name, *(f"{path.name}-{n}" for n in range(2, 1000))]
    with told_of_disk(folder):
        folder.mkdir(exist_ok=True)
        lock = own(path)
        try:
            path.replace(next(folder / name for name in names if not (folder / name).exists()))
        finally:
            lock.release()


def _look(path: Path, resume: Resume) -> bool:
    """Whether a folder, in which nothing leads out of it, holds a run."""
    known = _is_known(path)
    refuse_ways_out(path)
    if resume == "must" and not known:
        raise UserError(f"{path}: holds no run to resume; leave --resume out to start one")
    return known


def _is_known(path: Path) -> bool:
    """Whether a folder holds a run; a start that was cut short, or nothing, is none."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; choose another --out")
    if RecordedRun(path).exists:
        return True
    ours = {".lock", "owner", _PLUGIN_FOLDER, "recipe.toml", SUMS}
    ours |= {f"{name}.tmp" for name in ("recipe.toml", "resolved.toml", SUMS)}
    if path.is_dir() and any(entry.name not in ours for entry in path.iterdir()):
        RecordedRun(path).check_is_whole()
        raise UserError(f"{path}: not empty and no run directory; choose another --out")
    return False


def _written_out(resolved: Resolved, threads: int) -> str:
    """A recipe with every default, as it lies beside its plug-in files; computed with so many threads, 0: any."""
    import tomli_w

    tables = resolved.tables()
    tables["plugins"] = [f"{_PLUGIN_FOLDER}/{entry}" for entry in portable(tables)["plugins"]]
    tables["training"]["threads"] = threads
    return tomli_w.dumps(tables)


def _step_of(line: str) -> int:
    """The step that a line of metrics.jsonl belongs to; 0: it is none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return step if isinstance(step, int) else 0


def _check_resumable(directory: RunDirectory, resolved: Resolved, resume: Resume, renewed: bool) -> None:
    path = directory.path
    if RecordedRun(path).finished:
        done = f"nothing is left to do, {command('compare', path)} shows its results" if resume == "must" else ""
        raise UserError(f"{path}: holds a finished run; {done or 'choose another --out'}")
    key = "" if renewed else first_difference(identity_of(RecordedRun(path).tables), identity_of(resolved.tables()))
    if key:
        again = command("resume", path, "--set", f"{key}=PLACE")
        moved = f", or {again} if its files have moved" if key in places(resolved) else ""
        raise UserError(f"{path}: holds a run of another recipe ({key} differs); choose another --out{moved}")
    if resume == "never":
        raise UserError(f"{path}: holds an unfinished run; choose another --out, or allow --resume auto")


def unused(name: str, seed: int) -> Path:
    """The default directory, `runs/<name>/<time>-s<seed>`, as nobody has it yet."""
    path = Path("runs") / name / f"{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"
    names = [path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 1000))]
    return next(name for name in names if not name.exists())


@cache
def _packages() -> dict[str, str]:
    """What is installed; read once, as parsing it takes longer than a small run trains."""
    return dict(sorted((d.name, d.version) for d in distributions() if d.name))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
