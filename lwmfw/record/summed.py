"""SHA256SUMS: digests of what a run reads again besides its checkpoints, in the form that `sha256sum -c` takes.

Before a file changes its new digest is added there, and its old one goes when it has: whenever a process ends, the file
has a digest that is stated.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from lwmfw.errors import CheckpointRefused
from lwmfw.record.files import SMALL, TooLarge, bounded, told_of_reading, write_bytes, write_text

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([a-z]+\.[a-z]+)\n")


def write_summed(file: Path, text: str) -> None:
    """Write a file and its digest.

    Raises:
        DiskFailed: one of them cannot be written.
        CheckpointRefused: the digests are damaged.
    """
    content = text.encode()
    sums = file.with_name(SUMS)
    others = [line for line in _lines(sums) if line[1] != file.name]
    mine = [line for line in _lines(sums) if line[1] == file.name]
    new = (_digest(content), file.name)
    write_text(sums, _told([*others, *mine, new]))
    write_bytes(file, content)
    write_text(sums, _told([*others, new]))


def read_summed(file: Path, remedy: str, most: int = SMALL) -> bytes:
    """The content of a file, of so many bytes at most, which has a digest that is stated.

    Raises:
        CheckpointRefused: it has another, none is stated, or it is larger.
        UserError: it cannot be read.
    """
    sums = file.with_name(SUMS)
    content = _content(file, most, remedy)
    stated = [digest for digest, name in _lines(sums) if name == file.name]
    actual = _digest(content)
    if not stated:
        raise CheckpointRefused(
            f"{sums}: states no sha256 of {file.name}, which is {actual}; put it back, or take the files as they are "
            f"with `sha256sum resolved.toml results.json > {SUMS}` there"
        )
    if actual not in stated:
        raise CheckpointRefused(f"{file}: changed, sha256 is {actual}, {SUMS} says {' or '.join(stated)}; {remedy}")
    return content


def _lines(sums: Path) -> list[tuple[str, str]]:
    """Digests and names of files, the newest last."""
    if not os.path.isfile(sums):
        return []
    anew = "put it back, or remove it and make it anew with `sha256sum`"
    text = _content(sums, SMALL, anew).decode(errors="replace")
    lines = [_LINE.fullmatch(line) for line in text.splitlines(keepends=True)]
    if not all(lines):
        raise CheckpointRefused(f"{sums}: damaged; {anew}")
    return [(line[1], line[2]) for line in lines if line]


def _content(file: Path, most: int, remedy: str) -> bytes:
    with told_of_reading(file):
        try:
            return bounded(file, most)
        except TooLarge as error:
            raise CheckpointRefused(f"{file}: {error}; {remedy}") from None


def _told(lines: list[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for digest, name in lines)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
