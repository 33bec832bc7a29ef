"""Files that are whole or absent, and what a disk or a permission refuses, in words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lwmfw.errors import DiskFailed, UserError, shown

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR, errno.EFBIG)
"""What is no fault of a place that was named: a disk is full, or fails."""
SMALL, LARGE = 16 << 20, 2 << 30
"""Bytes that a file of a run may have: a recipe and other notes; and results, states and logs, which grow with the run.
A confusion matrix of 10,000 classes has 0.3e9 where few of its numbers are not 0."""


class TooLarge(ValueError):  # noqa: N818 - named for what is wrong, as it is printed
    """A file has more bytes than it may have."""


def check_size(path: Path, most: int) -> None:
    """See that a file can be read into memory.

    Raises:
        TooLarge: it has more bytes.
        OSError: it cannot be looked at.
    """
    if path.stat().st_size > most:
        raise TooLarge(f"larger than {most >> 20} MiB, as no such file of a run is")


def bounded(path: Path, most: int = SMALL) -> bytes:
    """The content of a file of a run; raises as `check_size`."""
    check_size(path, most)
    return path.read_bytes()


@contextmanager
def told_of_disk(path: Path, named: bool = False) -> Iterator[None]:
    """Tell of a write that fails, with its place and what is free there.

    Args:
        path: the place.
        named: whether it was named for what is written, so that another can be.

    Raises:
        DiskFailed: one does.
        UserError: nothing can be written in a place that was named.
    """
    try:
        yield
    except OSError as error:
        if named and error.errno not in DISK:
            what = f"cannot be written: {error.strerror or error}; choose another --out"
            raise UserError(f"{shown(str(path), 1000)}: {what}") from None
        raise disk_failure(path, error) from None  # which line has written says nothing


def disk_failure(path: Path, error: OSError) -> DiskFailed:
    """The failure to report when `path` could not be written."""
    free = "how much is free is not known"
    with suppress(OSError):
        free = f"{shutil.disk_usage(next(p for p in path.absolute().parents if p.exists())).free} bytes are free there"
    return DiskFailed(f"{path}: {error.strerror or error}, {free}; make room or mend the disk, and run it again")


@contextmanager
def told_of_reading(path: Path) -> Iterator[None]:
    """Tell of a file that cannot be read.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except TooLarge as error:
        raise UserError(f"{shown(str(path), 1000)}: {error}; name another") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}; have it made readable, or name another"
        raise UserError(f"{shown(str(path), 1000)}: {what}") from None


def write_text(path: Path, text: str, named: bool = False) -> None:
    """Write a file beside its place, then move it there: readers see the old or the new one, never half."""
    write_bytes(path, text.encode(), named)


def write_bytes(path: Path, content: bytes, named: bool = False) -> None:
    """As `write_text`, and on the disk before it has its name; raises as `told_of_disk`, which says what is `named`."""
    temporary = path.with_name(path.name + ".tmp")
    with told_of_disk(path, named):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # the next start removes it
                temporary.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Remove a folder of ours, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
