"""Nothing of a run is written outside its directory, whatever lies in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lwmfw.errors import CheckpointRefused, shown


def refuse_ways_out(folder: Path) -> None:
    """See that a directory that is to be written in holds nothing that writing would follow out of it, or wait for.

    Raises:
        CheckpointRefused: a link leads out, or there is a pipe or device.
    """
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            refuse_way_out(folder, os.path.join(path, name), "the run directory")


def refuse_way_out(folder: Path, path: str | Path, whose: str) -> None:
    """The same of one file or folder in a directory, which is called so."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode) and not is_inside(folder, path):
        what = f"is a link that leads out of {whose}; put what it leads to in its place"
    elif not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "is no regular file; remove it"
    else:
        return
    raise CheckpointRefused(f"{shown(str(path), 1000)}: {what}")


def is_inside(folder: Path, path: str | Path) -> bool:
    """Whether a path leads to a place in a folder, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
