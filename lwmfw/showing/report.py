"""A report: what runs have come to, as one page that needs nothing else.

The same bytes for the same files of a run; it says nothing of when it was made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lwmfw import __version__
from lwmfw.errors import UserError, harmless
from lwmfw.recipe.settings import path_of
from lwmfw.record.files import write_text
from lwmfw.record.links import refuse_ways_out
from lwmfw.record.reading import RecordedRun
from lwmfw.showing import single, together
from lwmfw.showing.charts import Chart
from lwmfw.showing.files import check_place
from lwmfw.showing.parts import Section, TableOf, counted
from lwmfw.showing.plots import LIGHT, notes_of, page_svg

NAME = "report.html"
_COLOURS = {  # on light paper, on dark
    "paper": ("#ffffff", "#14171c"),
    "raised": ("#f3f5f8", "#1e232b"),
    "muted": ("#57606a", "#a9b2bd"),
    "link": ("#0b5cad", "#7ab8f5"),
    "ink": (LIGHT.ink, "#e8ebf0"),
    "rule": (LIGHT.rule, "#3d4652"),
}
_ON_DARK = ("#58b1ea", "#ff9d57", "#3fcf9f", "#e79bd0", "#dfc14a", "#b9c2cc", "#7fd4f0")
_COLOURS |= {f"series-{n}": pair for n, pair in enumerate(zip(LIGHT.series, _ON_DARK, strict=True))}
_MOST = 4
"""Recipes that the heading names."""
_USER = re.compile(r"(?<=://)[^/\s\"'<>]+@")
"""Who an address is asked as, with a password or token."""


def report(*runs: os.PathLike[str] | str, out: os.PathLike[str] | str | None = None) -> Path:
    """Write the report of a run, or of several side by side; returns its file.

    Args:
        runs: run directories, finished or not, or results.json files.
        out: the file; by default report.html in the directory of the run, or for several, or for results alone, here.
            An earlier report is replaced, another file is not.

    Raises:
        UserError: no run, or a place that cannot be written.
        CheckpointRefused: a file of a run is damaged.
        DiskFailed: the page cannot be written.
    """
    recorded = [RecordedRun(Path(path_of("run", run))) for run in runs]
    if not recorded:
        raise UserError("report: names no run; name one, or several to put side by side")
    inside = out is None and len(recorded) == 1 and recorded[0].exists
    place = Path(path_of("--out", out)) if out else recorded[0].path / NAME if inside else Path(NAME)
    check_place(place)
    if inside:
        refuse_ways_out(recorded[0].path)
    write_text(place, page(recorded), named=True)
    return place


def page(runs: Sequence[RecordedRun]) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # before it is escaped: what turns the direction of text does so to a page as well
        finalize=lambda value: _shareable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    return environment.get_template("report.html.j2").render(_content(runs))


def _shareable(text: str) -> str:
    """Text as a page has it, without the users and passwords of addresses."""
    return harmless(_USER.sub("***@", text))


def _content(runs: Sequence[RecordedRun]) -> dict[str, Any]:
    if len(runs) == 1:
        (run,) = runs
        results, heading = run.results, run.results.recipe
        state = "finished" if results.complete else "not finished"
        lead = f"Seed {results.seed}, {counted(len(results.steps), 'step')}, {state}"
        words, sections = single.headline(run), single.sections(run)
    else:
        recipes = list(dict.fromkeys(run.results.recipe for run in runs))
        heading = ", ".join(recipes) if len(recipes) <= _MOST else f"{len(recipes)} recipes"
        lead = f"{len(runs)} runs side by side"
        words, sections = together.headline(runs), together.sections(runs)
    return {
        "version": __version__,
        "title": f"{heading} - lwmfw report",
        "heading": heading,
        "lead": lead,
        "headline": words,
        "sections": [_drawn(section) for section in sections if not section.empty],
        "light": _variables(0),
        "dark": _variables(1),
    }


def _drawn(section: Section) -> dict[str, Any]:
    """A section with its charts as pictures and tables."""
    opened, folded = ([table for table in section.tables if table.folded is wanted] for wanted in (False, True))
    charts = [_chart(chart, f"{section.id}-{number}") for number, chart in enumerate(section.charts, 1)]
    return vars(section) | {"charts": charts, "open": opened, "folded": folded}


def _chart(chart: Chart, name: str) -> dict[str, Any]:
    table = TableOf(chart.title, *chart.table) if chart.table else None
    return {"title": chart.title, "notes": notes_of(chart), "svg": page_svg(chart, name), "table": table}


def _variables(column: int) -> str:
    return " ".join(f"--{name}: {pair[column]};" for name, pair in _COLOURS.items())
