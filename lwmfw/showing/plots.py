"""The one drawing of every chart, as SVG whose text stays text, and as PNG; the same bytes for the same numbers.

A chart is drawn in the colours of a palette. Those of a page are stand-ins, which become variables of its style sheet:
one drawing serves light and dark. Lines differ by marker and dashes too, so that no colour has to be told from another.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from lwmfw.errors import harmless, shown
from lwmfw.showing.charts import Chart, Heat, Line, Lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP, _LETTER, _ROW = 400, 56, 14, 36, 8, 6.4, 16
"""Points: of a picture, its margins, a letter and a line of the legend."""
_PLOT, _CELL = 190, 46
"""Points: the height of a chart of lines, and the largest side of a cell."""
_DPI = 200
_MOST_MARKERS, _MOST_BANDS = 24, 4
"""On a line, and in a chart: more of them hide one another."""
_NAME, _LABEL = 14, 44
"""Letters of a class beside a heat map, and of a line of the legend."""


@dataclass(frozen=True)
class Palette:
    """Colours as matplotlib takes them: text and axes, rules, and lines in their order."""

    ink: str
    rule: str
    series: tuple[str, ...]


LIGHT = Palette("#1f2328", "#c9ced6", ("#0072b2", "#b84a00", "#007a59", "#a03d86", "#806000", "#4a5560", "#0f7fa8"))
"""At least 4.5:1 on white, apart from the rules; told apart by colour-blind eyes (after Okabe and Ito)."""
_STAND_INS = Palette("#010203", "#010204", tuple(f"#01030{n}" for n in range(len(LIGHT.series))))
_VARIABLES = {_STAND_INS.ink: "ink", _STAND_INS.rule: "rule"}
_VARIABLES |= {stand_in: f"series-{number}" for number, stand_in in enumerate(_STAND_INS.series)}
_MARKERS = "osD^vPX*h"
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lwmfw",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $1
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def notes_of(chart: Chart) -> list[str]:
    """What a reader has to know of a chart besides its title."""
    return [note for note in (chart.note, "In per cent." * (isinstance(chart, Heat) and chart.valued)) if note]


def page_svg(chart: Chart, name: str) -> str:
    """A chart as an element of a page, its colours variables: --ink, --rule, --series-0 and so on.

    Args:
        chart: what is drawn.
        name: what its ids begin with, which nothing else on the page has.
    """
    text = _svg(chart, _STAND_INS)
    return re.sub("<[^<>]*>", lambda tag: _for_page(tag[0], name), text[text.index("<svg") :])


def _for_page(tag: str, name: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        tag = tag.replace(stand_in, f"var(--{variable})")
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)


def svg(chart: Chart) -> str:
    """A chart as a file of its own, on white."""
    return _svg(chart, LIGHT, "white")


def png(chart: Chart) -> bytes:
    """The same in pixels."""
    stream = io.BytesIO()
    with _drawn(chart, LIGHT, "white") as figure:
        _entitle(figure, chart)
        figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": "lwmfw", "Title": harmless(chart.title)})
    return stream.getvalue()


def _svg(chart: Chart, palette: Palette, paper: str = "none") -> str:
    stream = io.StringIO()
    with _drawn(chart, palette, paper) as figure:
        if palette is not _STAND_INS:
            _entitle(figure, chart)
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return with_words(stream.getvalue(), chart.title, chart.words)


def with_words(drawing: str, title: str, words: str) -> str:
    """An SVG that says what it shows, for who does not see it."""
    told = f"<title>{escape(harmless(title))}</title>\n <desc>lwmfw: {escape(harmless(words))}</desc>"
    head, _, rest = drawing.partition("<svg ")
    opening, _, content = rest.partition(">")
    return f'{head}<svg role="img" {opening}>\n {told}{content}'


@contextmanager
def _drawn(chart: Chart, palette: Palette, paper: str) -> Iterator[Figure]:
    """A chart, drawn whatever settings of matplotlib a person has."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | dict.fromkeys(_INKED, palette.ink) | {"grid.color": palette.rule})
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # whoever reads the text has the letters
        figure = Figure(facecolor=paper)
        if isinstance(chart, Lines):
            _draw_lines(figure, chart, palette)
        else:
            _draw_heat(figure, chart, palette)
        yield figure


def _axes(figure: Figure, width: float, height: float, left: float, bottom: float, top: float, right: float) -> Axes:
    """The one pair of axes of a figure that is made as large as they and their margins, in points."""
    whole = left + width + right, bottom + height + top
    figure.set_size_inches(whole[0] / 72, whole[1] / 72)
    axes = figure.add_axes((left / whole[0], bottom / whole[1], width / whole[0], height / whole[1]))
    axes.set_facecolor("none")
    return axes


def _entitle(figure: Figure, chart: Chart) -> None:
    """Say above a chart in a file of its own what it shows, which a page has as its caption."""
    width, height = figure.get_size_inches()
    letters = int(width * 72 / _LETTER)
    lines = [line for text in (chart.title, *notes_of(chart)) for line in wrap(shown(text, 3 * letters), letters)]
    taller = height + (len(lines) * _ROW + _TOP) / 72
    figure.set_size_inches(width, taller)
    for axes in figure.axes:
        x, y, w, h = axes.get_position().bounds
        axes.set_position((x, y * height / taller, w, h * height / taller))
    figure.text(_TOP / 72 / width, 1 - _TOP / 72 / taller, "\n".join(lines), va="top", linespacing=1.3)


def _draw_lines(figure: Figure, chart: Lines, palette: Palette) -> None:
    labels = ["\n".join(wrap(shown(line.label, 3 * _LABEL), _LABEL)) for line in chart.lines]
    named = len(labels) > 1
    longest = max(len(part) for label in labels for part in label.split("\n"))
    columns = max(1, int((WIDTH - _LEFT) / (longest * _LETTER + 44)))
    lines = sum(label.count("\n") + 1 for label in labels)
    rows = -(-lines // columns) if named else 0
    axes = _axes(figure, WIDTH - _LEFT - _RIGHT, _PLOT, _LEFT, _BOTTOM, _TOP + rows * _ROW, _RIGHT)
    for border in chart.borders:
        axes.axvline(border, color=palette.rule, linewidth=0.8, linestyle=(0, (2, 3)))
    drawn = [
        _draw_line(axes, line, n if line.series is None else line.series, palette, banded=_banded(chart))
        for n, line in enumerate(chart.lines)
    ]
    axes.grid(axis="y", linewidth=0.7)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    _scale(axes, chart)
    if named:
        axes.legend(
            drawn,
            [f" {label}" for label in labels],  # one that begins with an underscore is shown too
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            handlelength=2.6,
            handletextpad=0.5,
            labelspacing=0.35,
        )


def _draw_line(axes: Axes, line: Line, number: int, palette: Palette, *, banded: bool) -> Line2D:
    """A line, which is returned, and its band, if it has one; what has no value leaves a gap."""
    y = [math.nan if value is None else value for value in line.y]
    colour = palette.series[number % len(palette.series)]
    (drawn,) = axes.plot(
        list(line.x),
        y,
        color=colour,
        marker=_MARKERS[number % len(_MARKERS)],
        markevery=max(1, len(line.x) // _MOST_MARKERS),
        linestyle=_DASHES[number % len(_DASHES)],
    )
    if banded and any(line.deviation):
        band = [(v, math.nan if d is None else d) for v, d in zip(y, line.deviation, strict=True)]
        low, high = [v - d for v, d in band], [v + d for v, d in band]
        axes.fill_between(line.x, low, high, color=colour, alpha=0.12, linewidth=0)
    return drawn


def _banded(chart: Lines) -> bool:
    return len(chart.lines) <= _MOST_BANDS


def _scale(axes: Axes, chart: Lines) -> None:
    """The reach of both axes, and where they have numbers."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    if chart.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        bands = [line.deviation if _banded(chart) else () for line in chart.lines]
        both = [zip(n.y, d or [None] * len(n.y), strict=True) for n, d in zip(chart.lines, bands, strict=True)]
        values = [(y, d or 0.0) for line in both for y, d in line if y is not None]
        highest, lowest = max(0.0, *(y + d for y, d in values)), min(0.0, *(y - d for y, d in values))
        top = highest * 1.08 if highest else -0.08 * lowest or 1.0  # what lies at nothing is seen whole
        axes.set_ylim(lowest * 1.08, 1.0 if chart.share and highest > 0.6 else top)
        if lowest < 0:  # a sign takes the room that the label has otherwise
            axes.yaxis.set_label_coords((12 - _LEFT) / (WIDTH - _LEFT - _RIGHT), 0.5)
    places = sorted({x for line in chart.lines for x in line.x})
    room = (places[-1] - places[0]) * 0.04 or 0.5
    axes.set_xlim(places[0] - room, places[-1] + room)
    if chart.ticks:
        axes.set_xticks(list(chart.ticks))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _draw_heat(figure: Figure, chart: Heat, palette: Palette) -> None:
    """Cells in colours, with their values, or else with a scale."""
    import numpy as np
    from matplotlib import colormaps

    rows, columns = len(chart.values), len(chart.values[0])
    names, heads = ([shown(name, _NAME) for name in each] for each in (chart.rows, chart.columns))
    left = 34 + _LETTER * max(map(len, names), default=3)
    upright = max(map(len, heads), default=0) > 3
    bottom = 24 + (_LETTER * max(map(len, heads)) if upright else 12 * bool(heads))
    right = _RIGHT if chart.valued else 58
    side = min(WIDTH - left - right, _CELL * columns)
    axes = _axes(figure, side, side * rows / columns, left, bottom, _TOP, right)
    colours = colormaps["viridis"]
    cells = np.ma.masked_invalid([[math.nan if v is None else v for v in row] for row in chart.values])
    axes.imshow(cells, cmap=colours, vmin=0, vmax=1, interpolation="none", aspect="auto")
    for border in chart.borders:
        for rule in (axes.axhline, axes.axvline):
            rule(border - 0.5, color="white", linewidth=0.7, alpha=0.7)
    if chart.valued:
        for y, row in enumerate(chart.values):
            for x, value in enumerate(row):
                if value is not None:
                    ink = _ink_on(colours(value)[:3])
                    axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=10)
    else:
        _draw_scale(figure, axes)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.yaxis.set_label_coords((12 - left) / side, 0.5)  # whatever the names' real widths are
    for axis, named in ((axes.xaxis, heads), (axes.yaxis, names)):
        axis.set_ticks(range(len(named)) if named else [], named or None)
        axis.set_tick_params(length=0)
    axes.tick_params(axis="x", rotation=90 if upright else 0)
    axes.spines[:].set_visible(False)


def _draw_scale(figure: Figure, axes: Axes) -> None:
    """What the colours of a heat map mean, beside it."""
    import numpy as np

    place = axes.get_position()
    scale = figure.add_axes((place.x1 + 12 / WIDTH, place.y0, 12 / WIDTH, place.height))
    shades = np.linspace(1, 0, 64)[:, None]
    scale.imshow(shades, cmap="viridis", aspect="auto", extent=(0, 1, 0, 1), interpolation="none")
    scale.yaxis.tick_right()
    scale.set(xticks=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    scale.spines[:].set_visible(False)
    scale.tick_params(length=2)


def _ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever has the more contrast on an sRGB colour (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if luminance > 0.179 else "white"
