"""Cells become processes, so many at a time, and what became of them is kept."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lwmfw.record.files import told_of_disk
from lwmfw.sweep.folder import DONE, FAILED, SweepFolder
from lwmfw.sweep.grid import Cell

RUNNING, BUSY, INTERRUPTED = "running", "busy", "interrupted"
_LOOK = 0.1
"""Seconds between looks at processes."""
_BUSY = 5
_INTERRUPTED = (129, 130, 143)
"""Exit codes of `lwmfw run`: another process has the directory; a signal came, and what was learned is kept."""


class Job(Protocol):
    """A command that was started: `subprocess.Popen`, or one on a cluster."""

    def poll(self) -> int | None:
        """Its exit code; None: it runs."""

    def terminate(self) -> None:
        """Have it keep where it is, and end."""


Start = Callable[[list[str], Path], Job]
"""Starts a command whose output is appended to a file."""


def start_here(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process beside this one, in the same group: what ends all of a group, ends it too.

    Raises:
        DiskFailed: the disk is full, or fails.
        UserError: the file cannot be written.
    """
    with told_of_disk(log, named=True), log.open("ab") as stream:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)  # noqa: S603 - ours


def command_of(folder: SweepFolder, cell: Cell, device: str) -> list[str]:
    """What runs a cell, or goes on with it; -P: no module is taken from the current folder, as `lwmfw` takes none."""
    files = [str(folder.recipe(cell)), "--out", str(folder.run(cell).path), "--device", device]
    return [sys.executable, "-P", "-m", "lwmfw", "run", *files]


def run_cells(
    folder: SweepFolder,
    cells: Sequence[Cell],
    jobs: int,
    device: str,
    start: Start,
    tell: Callable[[Cell, str], None],
) -> dict[str, str]:
    """Run cells, so many at a time; an exception, such as Ctrl-C, ends those that run, which keep where they are.

    Args:
        folder: where they lie, their recipes frozen.
        cells: those that are not done.
        jobs: how many at a time.
        device: as behind `--device`.
        start: what starts a command.
        tell: is told whenever a cell becomes RUNNING, DONE, FAILED, BUSY or INTERRUPTED.

    Returns:
        Name of a cell -> what became of it, of the last four.
    """
    waiting, running = deque(cells), dict[str, tuple[Cell, Job]]()
    became: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                folder.forget_failure(cell)
                running[cell.name] = cell, start(command_of(folder, cell, device), folder.log(cell))
                tell(cell, RUNNING)
            time.sleep(_LOOK)
            for cell, job in list(running.values()):
                code = job.poll()
                if code is not None:
                    del running[cell.name]
                    became[cell.name] = _settled(folder, cell, code)
                    tell(cell, became[cell.name])
    finally:
        for _, job in running.values():
            job.terminate()
        while any(job.poll() is None for _, job in running.values()):
            time.sleep(_LOOK)
    return became


def _settled(folder: SweepFolder, cell: Cell, code: int) -> str:
    if folder.run(cell).finished:
        return DONE
    if code == _BUSY:
        return BUSY
    if code in _INTERRUPTED:
        return INTERRUPTED
    folder.record_failure(cell, code)
    return FAILED
