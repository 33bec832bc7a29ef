"""The verbs that use what a run has learned."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli.letters import tell
from lwmfw.cli.options import Device, DeviceOption, JsonOption, ReadoutOption, RunArgument
from lwmfw.cli.table import print_json, print_table
from lwmfw.errors import harmless, shown

if TYPE_CHECKING:
    from lwmfw.using.predict import Decision, Predictor


class ExportFormat(StrEnum):
    """What to write."""

    ONNX = "onnx"
    PT2 = "pt2"


def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Folders with all below them.")],
    readout: ReadoutOption = "",
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Classes of each image.")] = 1,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Say which class images are of."""
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.using.predict import Predictor, decisions_json, images_of

    paths = images_of(images)
    predictor = Predictor(OpenedRun(run), readout, device.value)
    with _progress(len(paths)) as seen:
        decisions = predictor.decisions(paths, top, tell, seen)
    if json:
        print_json(decisions_json(decisions, predictor))
    else:
        show = _print_csv if csv else _print_table
        show(decisions, predictor)


def export(
    run: RunArgument,
    format_: Annotated[ExportFormat, typer.Option("--format", help="onnx, or pt2 for torch.export.load.")],
    readout: ReadoutOption = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file; default: RUN/export.FORMAT.")] = None,
    json: JsonOption = False,
) -> None:
    """Write what a run has learned as one file for other programs: pixels in, scores out."""
    from lwmfw.engine.opened import OpenedRun
    from lwmfw.using.export import export

    done = export(OpenedRun(run), format_.value, readout, out)
    if json:
        print_json({"file": str(done.path), "bytes": done.bytes, "difference": done.difference})
        return
    differ = f"scores differ from the run's by {done.difference:.1e} of the largest at most"
    print(f"{harmless(str(done.path))}: {done.bytes} bytes, {differ}")


def _print_table(decisions: Sequence[Decision], predictor: Predictor) -> None:
    from lwmfw.using.predict import decision_rows

    header, rows = decision_rows(decisions)
    shown_rows = [[shown(cell, 1000) for cell in row] for row in rows]
    if predictor.probability:
        print_table(header, shown_rows, kept=len(header))
        print(f"\nprobability: {predictor.probability}")
    else:
        print_table(header[:-1], [row[:-1] for row in shown_rows], kept=len(header) - 1)


def _print_csv(decisions: Sequence[Decision], predictor: Predictor) -> None:
    import csv

    from lwmfw.record.results import cell
    from lwmfw.using.predict import decision_rows

    header, rows = decision_rows(decisions)
    named = [[cell(image), rank, cell(name), *numbers] for image, rank, name, *numbers in rows]
    csv.writer(sys.stdout, lineterminator="\n").writerows([header, *named])
    if predictor.probability:
        print(f"probability: {predictor.probability}", file=sys.stderr)


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; what it yields is told how many are done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=count)
        yield lambda done: bar.update(task, completed=done)
