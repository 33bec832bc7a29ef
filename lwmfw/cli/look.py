"""The verbs that show what runs have come to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwmfw.cli.options import RunsArgument, TableFormat
from lwmfw.cli.table import print_table
from lwmfw.errors import harmless


def compare(
    runs: RunsArgument,
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


def report(
    runs: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: report.html in the directory of the run; of several runs, here."),
    ] = None,
) -> None:
    """Write what runs have come to as one page: figures, pictures, recipe, environment; several side by side."""
    from lwmfw.showing.report import report

    print(harmless(str(report(*runs, out=out))))


def plot(
    runs: RunsArgument,
    what: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="accuracy, matrix, forgetting, confusion, loss, rate, exemplars, memory or time; matrix, confusion, "
            "loss and rate are of one run, the others have means and deviations over the seeds of several.",
        ),
    ] = "accuracy",
    readout: Annotated[
        str, typer.Option(metavar="NAME", help="Of which read-out; default: all of one run, else the best at the end.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A .svg or .png file; default: NAME.svg.")] = None,
) -> None:
    """Draw a picture of runs: accuracy after each step, forgetting, confusion, terms of the loss and more."""
    from lwmfw.showing.picture import plot

    print(harmless(str(plot(runs, out or Path(f"{what}.svg"), what, readout))))
