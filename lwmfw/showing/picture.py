"""One chart as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lwmfw.record.files import write_bytes
from lwmfw.record.reading import RecordedRun
from lwmfw.showing.charts import chart_of
from lwmfw.showing.files import check_place, form_of
from lwmfw.showing.plots import png, svg


def plot(runs: Sequence[Path], out: Path, what: str, readout: str) -> Path:
    """Draw a chart of runs; returns its file, whose name says whether it is SVG or PNG.

    Raises:
        UserError: no run, no such chart or read-out, or a place that cannot be written.
        CheckpointRefused: a file of a run is damaged.
    """
    chart = chart_of(what, [RecordedRun(run) for run in runs], readout)
    form = form_of(out)
    check_place(out)
    write_bytes(out, png(chart) if form == "png" else svg(chart).encode())
    return out
