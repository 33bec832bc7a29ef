"""The verbs that show what runs have come to."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from lwmfw.cli.letters import tell
from lwmfw.cli.options import Device, DeviceOption, ReadoutOption, TableFormat
from lwmfw.cli.table import print_table
from lwmfw.errors import shown


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or results.json files.")],
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


def explain(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_IMAGE", help="Run directories, and images: files, or folders of them."),
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
    json: Annotated[bool, typer.Option("--json", help="Print all numbers, and the maps, as JSON.")] = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Draw where runs look in an image for a class, after every step, by Grad-CAM.

    A row for each run, a column for each step whose model is kept: all steps of what was run with --keep-steps.
    """
    from lwmfw.record.reading import RecordedRun
    from lwmfw.showing.attention_figure import check_place, write_figure
    from lwmfw.showing.explain import explain, parse_positions
    from lwmfw.showing.explained import explanation_rows, explanations_json, what_is_missing
    from lwmfw.using.predict import images_of

    figure = out or (None if json else Path("explain.png"))
    if figure:
        check_place(figure)
    runs = [place for place in places if RecordedRun(place).exists]
    images = images_of(place for place in places if place not in runs)
    found = explain(runs, images, test=parse_positions(test), class_name=class_, readout=readout, device=device.value)
    if figure:
        write_figure(figure, found)
    for line in what_is_missing(found):
        tell(line)
    if json:
        print(dumps(explanations_json(found), indent=1, allow_nan=False))
    else:
        header, rows = explanation_rows(found)
        print_table(header, [[shown(cell, 1000) for cell in row] for row in rows], kept=6)
    if figure:
        tell(f"{figure}: written")
