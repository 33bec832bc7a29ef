"""Pages and pictures on the disk: one of ours may be made anew, no other file is written over."""

from __future__ import annotations

from pathlib import Path

from lwmfw.errors import UserError, shown

MARKS = (b'<meta name="generator" content="lwmfw ', b"<desc>lwmfw: ", b"Software\0lwmfw")
"""What a page, an SVG and a PNG of ours have near their beginning."""
_NEAR = 4096


def check_place(file: Path) -> None:
    """See that a page or picture may be written there: in the place of an earlier one, or as a new file.

    Raises:
        UserError: there is something else, or no folder.
    """
    name = shown(str(file), 1000)
    try:
        if file.exists() and not (file.is_file() and _is_ours(file)):
            raise UserError(f"{name}: is there, and no earlier one of lwmfw; choose another --out")
        if not file.parent.is_dir():
            raise UserError(f"{name}: its folder is not there; make it, or choose another --out")
    except (OSError, ValueError) as error:  # a name that no file can have
        raise UserError(f"{name}: cannot be written: {error}; choose another --out") from error


def _is_ours(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(_NEAR)
    return any(mark in start for mark in MARKS)
