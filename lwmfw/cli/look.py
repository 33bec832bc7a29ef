"""The verbs that show what runs have come to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli import complete
from lwmfw.cli.letters import printable, tell
from lwmfw.cli.options import Device, DeviceOption, JsonOption, ReadoutOption, RunsArgument, TableFormat
from lwmfw.cli.table import print_json, print_table
from lwmfw.errors import UserError, harmless, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwmfw.record.reading import RecordedRun

_TEXTS = ("recipe", "read-out", "published")
_LONGEST = 40
"""Letters of a variant's name in the table of a terminal."""


def compare(
    runs: RunsArgument,
    baseline: Annotated[
        str, typer.Option(metavar="NAME|RUN", help="What differences are taken to; default: the first variant.")
    ] = "",
    by_bytes: Annotated[
        bool, typer.Option("--bytes", help="Order by the bytes of model, exemplars and read-out together.")
    ] = False,
    format_: Annotated[
        TableFormat, typer.Option("--format", help="csv: tidy accuracies of each run; json: all numbers, in full.")
    ] = TableFormat.TABLE,
) -> None:
    """Put the results of runs side by side; seeds of one variant are averaged."""
    from lwmfw.record.compare import compare, plain_comparison
    from lwmfw.record.results import accuracy_csv

    read = _begun(runs)
    if format_ is TableFormat.CSV:
        if baseline or by_bytes:
            raise UserError("--format csv: has every run by itself; leave --baseline and --bytes out, or take json")
        print(accuracy_csv({str(run.path): run.results for run in read}), end="")
    elif format_ is TableFormat.JSON:
        print_json(plain_comparison(compare(read, baseline, by_bytes=by_bytes)))
    else:
        print_comparison(read, baseline, by_bytes=by_bytes, format_=format_)


def _begun(paths: Sequence[Path]) -> list[RecordedRun]:
    """Those that have finished a step; the others are told, or refused when they are read if there is none."""
    from lwmfw.record.reading import RecordedRun

    runs = [RecordedRun(path) for path in paths]
    begun = [run for run in runs if run.begun]
    for run in runs if begun else ():
        if not run.begun:
            tell(f"{run.path}: left out: the run has not finished a step")
    return begun or runs


def print_comparison(
    runs: Sequence[RecordedRun],
    baseline: str = "",
    *,
    by_bytes: bool = False,
    format_: TableFormat = TableFormat.TABLE,
) -> None:
    """Print a comparison on stdout, and on stderr what its differences mean."""
    from lwmfw.cli.formats import latex_table, markdown_table
    from lwmfw.record.tables import DIFFERENCE, comparison_rows

    header, rows = comparison_rows(runs, baseline, by_bytes=by_bytes, brief=format_ is not TableFormat.TABLE)
    if format_ is TableFormat.LATEX:
        print(latex_table(header, rows, _TEXTS))
    elif format_ is TableFormat.MARKDOWN:
        print(markdown_table(header, rows, _TEXTS))
    else:
        rows, names = _shortened(rows) if sys.stdout.isatty() else (rows, [])
        print_table(header, rows, kept=6)
        for line in names:
            print(printable(line))
    if any(title.endswith("difference") for title in header):
        tell(DIFFERENCE)
    if by_bytes:
        tell("best: no other row of the same data has at least its average with at most its bytes")


def _shortened(rows: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """Rows with the beginnings of long names, and lines that say the names in full."""
    long = list(dict.fromkeys(row[0] for row in rows if len(row[0]) > _LONGEST))
    short = {name: f"{name[:_LONGEST]}… [{number}]" for number, name in enumerate(long, 1)}
    return [[short.get(name, name), *rest] for name, *rest in rows], [f"[{n}] {name}" for n, name in enumerate(long, 1)]


def explain(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_IMAGE",
            help="Run directories, and images: files, or folders of them.",
            autocompletion=complete.run,
        ),
    ],
    test: Annotated[
        str,
        typer.Option(metavar="N,...", help="Test images of the first run's data, in class order, for want of files."),
    ] = "",
    class_: Annotated[
        str,
        typer.Option("--class", metavar="NAME", help="Attention to it; default: what the image is, or is said to be."),
    ] = "",
    readout: ReadoutOption = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .png or .svg; default: explain.png, with --json none.")
    ] = None,
    json: JsonOption = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Draw where runs look in an image for a class, after every step, by Grad-CAM.

    A row for each run, a column for each step whose model is kept: all steps of what was run with --keep-steps.
    """
    from lwmfw.record.reading import RecordedRun
    from lwmfw.showing.attention_figure import write_figure
    from lwmfw.showing.explain import explain, parse_positions, refuse_runs_in
    from lwmfw.showing.explained import explanation_rows, explanations_json, what_is_missing
    from lwmfw.showing.files import check_place, form_of
    from lwmfw.using.predict import images_of

    figure = out or (None if json else Path("explain.png"))
    if figure:
        form_of(figure)
        check_place(figure)
    runs = [place for place in places if RecordedRun(place).exists]
    others = [place for place in places if place not in runs]
    refuse_runs_in(others)
    images = images_of(others)
    found = explain(runs, images, test=parse_positions(test), class_name=class_, readout=readout, device=device.value)
    if figure:
        write_figure(figure, found)
    for line in what_is_missing(found):
        tell(line)
    if json:
        print_json(explanations_json(found))
    else:
        header, rows = explanation_rows(found)
        print_table(header, [[shown(cell, 1000) for cell in row] for row in rows], kept=6)
    if figure:
        tell(f"{figure}: written")


def report(
    runs: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Default: report.html in the directory of the run; of several runs, or of a results.json, here.",
        ),
    ] = None,
) -> None:
    """Write what runs have come to as one page: figures, pictures, recipe, environment; several side by side."""
    from lwmfw.showing.report import report

    print(harmless(str(report(*[run.path for run in _begun(runs)], out=out))))


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
        str,
        typer.Option(
            metavar="NAME",
            help="Of which read-out; default: all of one run, else the best at the end that the most runs have.",
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A .svg or .png file; default: NAME.svg.")] = None,
) -> None:
    """Draw a picture of runs: accuracy after each step, forgetting, confusion, terms of the loss and more."""
    from lwmfw.showing.picture import plot

    place = out or Path(f"{what}.svg")
    for label in plot([run.path for run in _begun(runs)], place, what, readout):
        tell(f"{label}: has nothing of the kind; --readout names another read-out")
    print(harmless(str(place)))
