"""A disk that fails: the nth operation on files below a folder raises, or writes only a part."""

import errno
import io
import os
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

CALLS = ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "truncate")
KINDS = {"full": errno.ENOSPC, "broken": errno.EIO, "interrupted": errno.EINTR, "short": 0}


class Disk:
    """Counts what is done to files; `at`: which operation fails, counted from 1, 0 none; `kind`: of KINDS; `lasting`:
    whether all later writes fail too, as on a disk that stays full."""

    def __init__(self, folder, kind, at=0, lasting=False):
        self.folder, self.kind, self.at, self.lasting = str(Path(folder).absolute()), kind, at, lasting
        self.count, self.failed = 0, ""

    def step(self, what, place):
        """An operation begins; True: only a part of it is done."""
        self.count += 1
        if self.count < self.at or not self.at or (self.count > self.at and not self.lasting):
            return False
        if KINDS[self.kind] == 0:
            self.failed = self.failed or ("short" if what == "write" else "")
            return what == "write"
        self.failed = self.failed or f"{what} {place}"
        raise OSError(KINDS[self.kind], os.strerror(KINDS[self.kind]), str(place))

    def ours(self, place):
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return str(os.path.abspath(place)).startswith(self.folder)


@contextmanager
def failing(disk):
    """Inside, the disk is so."""

    class Raw(io.FileIO):
        def write(self, data, /):
            part = disk.step("write", self.name) and len(data) > 1
            return super().write(memoryview(data)[: len(data) // 2] if part else data)

    opened = io.open

    def failing_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest):
        if not set(mode) & set("wax+") or isinstance(file, int) or not disk.ours(file):
            return opened(file, mode, buffering, encoding, errors, newline, *rest)
        disk.step("open", file)
        raw = io.BufferedWriter(Raw(file, mode.replace("b", "").replace("t", "")))
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding, errors, newline)

    def wrapped(name):
        call = getattr(os, name)

        def failing_call(place, *args, **named):
            if named.get("dir_fd") is None and disk.ours(place):
                disk.step(name, place)
            return call(place, *args, **named)

        return failing_call

    with patch.multiple(os, **{name: wrapped(name) for name in CALLS}), patch.object(io, "open", failing_open):
        yield disk
