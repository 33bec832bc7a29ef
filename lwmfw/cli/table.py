"""Tables on stdout."""

from __future__ import annotations

import sys
from typing import Literal


def print_table(header: list[str], rows: list[list[str]], kept: int = 0) -> None:
    """A table on stdout: ruled on a terminal, aligned columns elsewhere; columns of numbers are set right.

    Args:
        header: of its columns.
        rows: a text for each of them.
        kept: how many columns a narrow terminal shows in any case; of the others as many as fit, the first column
            folded where that helps; 0: all, folded as the terminal wants.
    """
    right = [bool(rows) and all(not row[i] or row[i][0] in "0123456789-" for row in rows) for i in range(len(header))]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    if not sys.stdout.isatty():
        for row in [header, *rows]:
            cells = zip(row, widths, right, strict=True)
            print("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    shown = _fitting(widths, kept, console.width) if kept else len(header)
    whole = kept > 0 and sum(widths[1:shown]) + 2 * shown + min(_NARROWEST, widths[0]) <= console.width
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(header[:shown]):
        justify: Literal["left", "right"] = "right" if right[number] else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=whole and number > 0)
    for row in rows:
        table.add_row(*map(Text, row[:shown]))
    console.print(table)


_NARROWEST = 12
"""Letters of the first column that are still a name."""


def _fitting(widths: list[int], kept: int, room: int) -> int:
    """How many columns are shown: those that are kept, and the others that fit beside a first column that is folded."""
    needed = [min(_NARROWEST, widths[0]), *widths[1:]]
    return max([kept, *(n for n in range(kept, len(widths) + 1) if sum(needed[:n]) + 2 * n <= room)])
