"""Tables and JSON on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lwmfw.cli.letters import printable

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST = 12
"""Letters of a folded first column that are still a name."""
_BETWEEN = 2
"""Spaces between columns."""


def print_json(value: object) -> None:
    """What a verb came to, for programs."""
    import json

    print(json.dumps(value, indent=1, allow_nan=False, default=str))


def print_table(header: list[str], rows: list[list[str]], kept: int = 0) -> None:
    """A table on stdout: ruled on a terminal, aligned columns elsewhere; columns of numbers are set right.

    Args:
        header: of its columns.
        rows: a text for each of them.
        kept: how many columns a terminal shows in any case, none but the first of them folded; of the others as many
            as fit. Where not even these fit, a row becomes a block of lines. 0: all, folded as the terminal wants, for
            tables whose last column is a text.
    """
    header, *rows = [[printable(cell).replace("\n", "\\n") for cell in row] for row in (header, *rows)]
    numbers = [bool(rows) and all(not row[i] or row[i][0] in "0123456789-" for row in rows) for i in range(len(header))]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    if not sys.stdout.isatty():
        for row in [header, *rows]:
            cells = zip(row, widths, numbers, strict=True)
            print("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip())
        return
    from rich.console import Console

    console = Console()
    shown = _fitting(widths, kept, console.width) if kept else len(header)
    if shown < kept:
        _print_blocks(header[:kept], rows)
    else:
        _print_ruled(console, header[:shown], rows, numbers, whole=kept > 0)
    if max(shown, kept) < len(header):
        left_out = len(header) - max(shown, kept)
        print(f"columns left out: {left_out}; widen the terminal, or send the table to a file", file=sys.stderr)


def _fitting(widths: Sequence[int], kept: int, room: int) -> int:
    """How many columns fit beside a first one that is folded."""
    needed = [min(_NARROWEST, widths[0]), *widths[1:]]
    return max((n for n in range(1, len(widths) + 1) if sum(needed[:n]) + _BETWEEN * (n - 1) <= room), default=0)


def _print_ruled(
    console: Console, header: list[str], rows: list[list[str]], numbers: Sequence[bool], *, whole: bool
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rule = box.Box("\n".join(map(printable, str(box.SIMPLE_HEAD).splitlines())), ascii=True)
    table = Table(box=rule, pad_edge=False, show_edge=False, padding=(0, _BETWEEN - 1, 0, 0))
    for place, title in enumerate(header):
        justify: Literal["left", "right"] = "right" if numbers[place] else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=numbers[place] or (whole and place > 0))
    for row in rows:
        table.add_row(*map(Text, row[: len(header)]))
    console.print(table)


def _print_blocks(header: list[str], rows: list[list[str]]) -> None:
    """Each row as lines of a title and a value; the terminal breaks what is longer than it is wide."""
    width = max(map(len, header))
    for row in rows:
        for title, value in zip(header, row, strict=False):
            print(f"{title:<{width}}  {value}")
        print()
