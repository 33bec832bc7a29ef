"""Tables on stdout."""

from __future__ import annotations

import sys


def print_table(header: list[str], rows: list[list[str]], kept: int = 0) -> None:
    """A table on stdout: ruled on a terminal, aligned columns elsewhere; columns of numbers are set right.

    Args:
        header: of its columns.
        rows: a text for each of them.
        kept: how many columns a narrow terminal shows; of the others, as many as fit; 0: all, folded.
    """
    right = [bool(rows) and all(not row[i] or row[i][0] in "0123456789-" for row in rows) for i in range(len(header))]
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        for row in [header, *rows]:
            cells = zip(row, widths, right, strict=True)
            print("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, shown = Console(), len(header)
    if kept:
        widths = [2 + max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        shown = max([kept, *(n for n in range(kept, len(header) + 1) if sum(widths[:n]) <= console.width)])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, number in zip(header[:shown], right, strict=False):
        table.add_column(title, justify="right" if number else "left", overflow="fold", no_wrap=bool(kept and number))
    for row in rows:
        table.add_row(*map(Text, row[:shown]))
    console.print(table)
