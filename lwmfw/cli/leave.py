"""What a command that trains leaves behind besides the run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from lwmfw.cli.letters import tell
from lwmfw.errors import FOREIGN, Interrupted, LwmfwError, OutputFailed, command, describe, one_line

if TYPE_CHECKING:
    from lwmfw.engine.run import Run


def leave(done: Run, show: Callable[[], None]) -> None:
    """Show what a run came to, which nothing that comes later can take back, and write its report.

    Raises:
        OutputFailed: nobody reads what is shown; the report is written all the same.
        Interrupted: Ctrl-C; the run is whole.
    """
    try:
        try:
            show()
            sys.stdout.flush()
        except OutputFailed:
            report(done)
            raise
        report(done)
    except KeyboardInterrupt as error:
        if done.directory is None:
            raise
        path = done.directory.path
        said = f"{command('compare', path)} shows its results, {command('report', path)} draws its report"
        raise Interrupted(f"{path}: interrupted, but the run has ended; {said}", exit_code=130) from error


def report(done: Run) -> None:
    """Write the report of a run into its directory, and say where; one that cannot be written costs no run."""
    if done.directory is None:
        return
    path, home = done.directory.path, done.directory.checkpoints.parent  # a plug-in may have changed the folder
    try:
        from lwmfw.showing.exemplars import keep_originals
        from lwmfw.showing.report import NAME, report

        keep_originals(done)
        report(home)
        tell(f"report in {path / NAME}")
    except FOREIGN as error:
        why = one_line(error) if isinstance(error, LwmfwError) else describe(error)
        tell(f"no report: {why}; the run is whole, {command('report', path)} tries again")
