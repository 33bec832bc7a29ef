"""The verbs that show what runs have come to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwmfw.cli import complete
from lwmfw.cli.options import TableFormat
from lwmfw.cli.table import print_table


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories, or results.json files.", autocompletion=complete.run),
    ],
    format_: Annotated[TableFormat, typer.Option("--format", help="table, or tidy csv.")] = TableFormat.TABLE,
) -> None:
    """Put the results of runs side by side; seeds of one variant are averaged."""
    from lwmfw.record.compare import comparison_rows
    from lwmfw.record.reading import RecordedRun
    from lwmfw.record.results import accuracy_csv

    read = [RecordedRun(path) for path in runs]
    if format_ is TableFormat.CSV:
        print(accuracy_csv({str(run.path): run.results for run in read}), end="")
    else:
        print_table(*comparison_rows(read), kept=6)
