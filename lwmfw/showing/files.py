"""Pages and pictures on the disk: one of ours may be made anew, no other file is written over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from lwmfw.errors import UserError, shown
from lwmfw.recipe.settings import path_of
from lwmfw.record.links import is_inside

MARKS = (b'<meta name="generator" content="lwmfw ', b"<desc>lwmfw: ", b"Software\0lwmfw", b"<dc:title>lwmfw explain<")
"""What a page, an SVG, a PNG and an SVG of `explain` before it had a description have near their beginning."""
_NEAR = 4096
Form = Literal["png", "svg"]
_FORMS: dict[str, Form] = {".png": "png", ".svg": "svg"}


def form_of(file: Path) -> Form:
    """What a picture is drawn as, which its name says.

    Raises:
        UserError: it says neither.
    """
    form = _FORMS.get(file.suffix.lower())
    if not form:
        raise UserError(f"--out {shown(str(file), 1000)}: should end in .svg or .png, which says what is drawn")
    return form


def check_place(file: Path) -> None:
    """See that a page or picture may be written there: in the place of an earlier one, or as a new file.

    Raises:
        UserError: there is something else, or no folder.
    """
    name = shown(path_of("--out", file), 1000)
    try:
        if (file.exists() or file.is_symlink()) and not (file.is_file() and _is_ours(file)):
            raise UserError(f"{name}: is there, and no earlier one of lwmfw; choose another --out")
        if not file.parent.is_dir():
            raise UserError(f"{name}: its folder is not there; make it, or choose another --out")
        if not os.access(file.parent, os.W_OK):
            raise UserError(f"{name}: its folder cannot be written in; have it made writable, or choose another --out")
    except (OSError, ValueError) as error:  # a name that no file can have
        raise UserError(f"{name}: cannot be written: {error}; choose another --out") from error


def png_in(folder: Path, file: Path, most: int) -> bytes:
    """The content of a PNG file in the directory of a run; empty: there is none to be read, or it has more bytes."""
    try:
        if not (os.path.isfile(file) and is_inside(folder, file) and file.stat().st_size <= most):
            return b""
        content = file.read_bytes()
    except OSError:
        return b""
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 24 else b""


def _is_ours(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(_NEAR)
    return any(mark in start for mark in MARKS)
