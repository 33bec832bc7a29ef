"""One chart as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lwmfw.record.files import write_bytes
from lwmfw.record.reading import RecordedRun
from lwmfw.record.variants import variants
from lwmfw.showing.charts import Lines, chart_of
from lwmfw.showing.files import check_place, form_of
from lwmfw.showing.plots import png, svg


def plot(paths: Sequence[Path], out: Path, what: str, readout: str) -> list[str]:
    """Draw a chart of runs in a file, whose name says whether it is SVG or PNG; returns the variants without a line.

    Raises:
        UserError: no run, no such chart or read-out, or a place that cannot be written.
        CheckpointRefused: a file of a run is damaged.
    """
    form = form_of(out)
    check_place(out)
    runs = [RecordedRun(path) for path in paths]
    chart = chart_of(what, runs, readout)
    write_bytes(out, png(chart) if form == "png" else svg(chart).encode(), named=True)
    if len(runs) == 1 or not isinstance(chart, Lines):
        return []
    return [label for label in variants(runs) if label not in {line.label for line in chart.lines}]
