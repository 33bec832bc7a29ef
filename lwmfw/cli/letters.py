"""Streams of few letters: what cannot be encoded is printed as what is like it, never the end of a command."""

from __future__ import annotations

import codecs
import io
import sys

from lwmfw.errors import harmless

_LIKE = {"±": "+-", "…": "...", "─": "-", "━": "-", "→": "->", "×": "x", "·": "-", "–": "-", "—": "-"}
_LIKE |= {"‘": "'", "’": "'", "“": '"', "”": '"', "≥": ">=", "≤": "<="}
_HANDLER = "lwmfw.like"


def take_any_letter() -> None:
    """Let stdout and stderr take any text, on an ASCII terminal and of files whose names are no text too."""
    codecs.register_error(_HANDLER, _like)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def tell(text: str) -> None:
    """Print on stderr what may hold names and words of others."""
    print(harmless(text), file=sys.stderr)


def printable(text: str) -> str:
    """A text as stdout prints it, which a table has to know for its widths."""
    text = harmless(text)
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != _HANDLER:
        return text
    return text.encode(stream.encoding, _HANDLER).decode(stream.encoding)


def _like(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_one, error.object[error.start : error.end])), error.end


def _one(letter: str) -> str:
    # else the escape of TOML and JSON, so that what `show` prints is still a recipe
    return _LIKE.get(letter) or (f"\\u{ord(letter):04x}" if ord(letter) < 1 << 16 else f"\\U{ord(letter):08x}")
