"""A run directory has one owner: a process that lives."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lwmfw.errors import RunBusy, shown

WAIT = "wait for it or choose another --out"


def own(path: Path, way: str = WAIT) -> FileLock:
    """Own a directory that is there, until the lock is released or the process ends.

    Args:
        path: the directory.
        way: what a person can do where another process owns it.

    Raises:
        RunBusy: another process owns it.
    """
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunBusy(f"{path}: busy, owned by {_owner(path)}; {way}") from error
    try:
        (path / "owner").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except BaseException:
        lock.release()
        raise
    return lock


def _owner(path: Path) -> str:
    """Who owns a directory; one that has just come may not have said so yet, where a killed one had."""
    said = ""
    for _ in range(20):
        with suppress(OSError, ValueError):
            said = (path / "owner").read_text(encoding="utf-8")
        match = re.fullmatch(r"process ([0-9]+) on (.+)", said)
        if match and (match[2] != socket.gethostname() or _lives(int(match[1]))):
            break
        time.sleep(0.05)
    return shown(said) or "another process"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
