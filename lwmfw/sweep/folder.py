"""The folder of a sweep: for each cell its recipe, its run directory, what it said and, where it failed, how.

Recipes name copies of their plug-in files, `.plugins/DIGEST/NAME.py`, so that no cell changes with a file. Nothing else
is kept of a sweep: what is done and what is left to do is seen from there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lwmfw.errors import RunBusy, UserError, command, harmless, shown
from lwmfw.record.files import told_of_disk, write_bytes, write_text
from lwmfw.record.identity import first_difference, identity_of
from lwmfw.record.links import refuse_way_out, refuse_ways_out
from lwmfw.record.reading import RecordedRun
from lwmfw.sweep.grid import Cell

DONE, FAILED, BEGUN, NEW = "done", "failed", "unfinished", "new"
"""What a cell is before a sweep looks after it."""
_OURS = ".sweep"
"""The file that makes a folder a sweep's, and that its owner has locked."""
_PLUGINS, _ASIDE = ".plugins", ".aside"


class SweepFolder:
    """The files of a sweep.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def recipe(self, cell: Cell) -> Path:
        """The frozen recipe that a cell is run from."""
        return self.path / f"{cell.name}.toml"

    def log(self, cell: Cell) -> Path:
        """What its runs have said, one behind the other."""
        return self.path / f"{cell.name}.log"

    def run(self, cell: Cell) -> RecordedRun:
        """Its run."""
        return RecordedRun(self.path / cell.name)

    def _failure(self, cell: Cell) -> Path:
        return self.path / f"{cell.name}.failed"

    def state(self, cell: Cell) -> str:
        """One of DONE, FAILED, BEGUN and NEW."""
        if self.run(cell).finished:
            return DONE
        if self._failure(cell).is_file():
            return FAILED
        return BEGUN if self.run(cell).exists else NEW

    def failure(self, cell: Cell) -> str:
        """How a cell failed, in words."""
        return shown(self._failure(cell).read_text(encoding="utf-8", errors="replace").strip(), 500)

    def record_failure(self, cell: Cell, code: int) -> None:
        """Keep how a cell failed, until it is tried again."""
        how = f"exit {code}" if code >= 0 else f"killed by signal {-code}"
        write_text(self._failure(cell), f"{how}: {self.last_line(cell) or 'it said nothing'}\n", named=True)

    def forget_failure(self, cell: Cell) -> None:
        """Have a cell tried again."""
        self._failure(cell).unlink(missing_ok=True)

    def last_line(self, cell: Cell) -> str:
        """The last of what a cell's run has said, as a terminal may be given it."""
        try:
            with self.log(cell).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - 4000))
                lines = stream.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return harmless(next((line.strip() for line in reversed(lines) if line.strip()), ""))[:500]

    def freeze(self, cells: Sequence[Cell], retry: bool = False) -> None:
        """Write the recipes of cells, once those that have begun are seen to be those that they were.

        Args:
            cells: the cells.
            retry: whether a cell that has failed may be another one now; its run is set aside if it has no step.

        Raises:
            UserError: a cell has begun, or is done, with another recipe; or a copy of a plug-in file was changed.
            RunBusy: another process is at work on a run that is to be set aside.
            CheckpointRefused: something in such a run leads out of it.
        """
        mended = []
        for cell in cells:
            run = self.run(cell)
            key = first_difference(identity_of(run.tables), identity_of(cell.resolved.tables())) if run.exists else ""
            if key and not (retry and self._anew(cell)):
                way = self._way_on(cell, key)
                raise UserError(f"{run.path}: holds a run of another recipe ({key} differs); {way}choose another --out")
            mended += [cell] * bool(key)
        for file, digest in {each for cell in cells for each in _plugin_files(cell)}:
            self._keep(file, digest)
        for cell in mended:
            from lwmfw.record.directory import set_aside  # which imports torch

            refuse_ways_out(self.run(cell).path)
            set_aside(self.run(cell).path, self.path / _ASIDE)
        for cell in cells:
            if not self.run(cell).finished or not self.recipe(cell).is_file():
                write_text(self.recipe(cell), self._frozen(cell), named=True)

    def _anew(self, cell: Cell) -> bool:
        """Whether a cell has failed before it finished a step."""
        from lwmfw.record import checkpoint  # which imports torch

        return self.state(cell) == FAILED and not checkpoint.steps(self.run(cell).path / "checkpoints")

    def _way_on(self, cell: Cell, key: str) -> str:
        """What else than another folder there is for a cell that is of another recipe now."""
        if self._anew(cell):
            return "begin it anew with --retry, or "
        if key != "plugins":
            return ""
        if self.run(cell).finished:
            return "leave this cell out, or "
        return f"go on with the mended file with {command('resume', self.run(cell).path, '--plugins', 'FILE')}, or "

    def _frozen(self, cell: Cell) -> str:
        """A cell's recipe, every default written out, that names the copies of its plug-in files."""
        import tomli_w

        tables = cell.resolved.tables()
        if self.run(cell).exists and tables["training"]["threads"]:  # other threads would change its last bits
            tables["training"]["threads"] = self.run(cell).tables["training"]["threads"]
        tables["plugins"] = [f"{_kept(file, digest)}#sha256:{digest}" for file, digest in _plugin_files(cell)]
        return tomli_w.dumps(tables)

    def _keep(self, file: Path, digest: str) -> None:
        place = self.path / _kept(file, digest)
        with told_of_disk(place, named=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            content = file.read_bytes()
            if place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() != digest:
                raise UserError(f"{place}: was changed, and is a copy of {file}; change that, and remove the copy")
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"{file}: was changed while the sweep began; run the same command again")
        write_bytes(place, content, named=True)


def _plugin_files(cell: Cell) -> list[tuple[Path, str]]:
    return [(file, provider.sha256) for file, provider in cell.resolved.catalogue.files.items()]


def _kept(file: Path, digest: str) -> str:
    """Where a copy lies: cells of one folder may have been begun with different files of one name."""
    return f"{_PLUGINS}/{digest[:16]}/{file.name}"


def _refuse_ways_out(path: Path) -> None:
    """See that what a sweep writes stays in its folder; the directories of cells are seen to by what runs there."""
    for each in path.iterdir():
        if each.name.startswith(".") or not os.path.isdir(each):
            refuse_way_out(path, each, "the sweep's folder")
    for each in path.glob(f"{_PLUGINS}/**/*"):
        refuse_way_out(path, each, "the sweep's folder")


@contextmanager
def owned(path: Path) -> Iterator[SweepFolder]:
    """The folder of a sweep, made if it is not there, that nobody else looks after meanwhile.

    Raises:
        UserError: it holds something else, or cannot be used.
        CheckpointRefused: something in it leads out of it.
        RunBusy: another sweep is at work there.
    """
    try:
        if path.exists() and not (path / _OURS).is_file() and next(path.iterdir(), None):
            raise UserError(f"{shown(str(path), 1000)}: not empty and no sweep's; choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        _refuse_ways_out(path)
        lock = FileLock(path / _OURS)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunBusy(f"{path}: busy, another sweep is at work there; wait for it or choose another --out") from error
    except OSError as error:
        raise UserError(f"{shown(str(path), 1000)}: cannot be used: {error.strerror}; choose another --out") from error
    try:
        yield SweepFolder(path)
    finally:
        lock.release()
