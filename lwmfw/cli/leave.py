"""What a command that trains leaves behind besides the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwmfw.cli.letters import tell
from lwmfw.errors import FOREIGN, LwmfwError, describe, one_line

if TYPE_CHECKING:
    from lwmfw.engine.run import Run


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
        tell(f"no report: {why}; the run is whole, `lwmfw report {path}` tries again")
