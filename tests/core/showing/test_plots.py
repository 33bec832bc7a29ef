"""The drawing of charts: the same bytes from the same numbers, text that stays text, nothing told by colour alone."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from helpers import ROOT
from helpers.results import results_of

from lwmfw.record.reading import RecordedRun
from lwmfw.showing.charts import CHARTS, Heat, Line, Lines
from lwmfw.showing.plots import LIGHT, _drawn, page_svg, png, svg

LINES = Lines("accuracy", "Accuracy", "classes", "accuracy", [Line("a", [1, 2], [0.5, 0.4], [0.1, 0.1])], share=True)
HEAT = Heat("matrix", "Matrix", "x", "y", [[0.5, None], [0.25, 1.0]], "half", ["one", "two"], ["1", "2"], [1])
DRAW = (
    "import hashlib, test_plots as t\n"
    "print([hashlib.sha256(x).hexdigest() for c in (t.LINES, t.HEAT) for x in (t.svg(c).encode(), t.png(c))])"
)


def texts(drawn):
    return [node.text.strip() for node in ElementTree.fromstring(drawn).iter() if node.tag.endswith("}text")]  # noqa: S314


@pytest.mark.slow
def test_two_processes_draw_the_same_bytes():
    folder = Path(__file__).parent
    places = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    draw = {"args": [sys.executable, "-c", DRAW], "cwd": folder, "env": os.environ | {"PYTHONPATH": places}}
    first, second = (subprocess.check_output(**draw) for _ in range(2))
    assert first == second


def test_there_is_no_band_where_one_run_alone_was_measured():
    both, one, none = (
        svg(Lines("a", "A", "x", "y", [Line("a", [1, 2, 3], [0.4, 0.5, 0.6], deviation)]))
        for deviation in ([0.1, 0.1, 0.1], [0.1, 0.1, None], [None, None, None])
    )
    bands = [re.findall(r'id="FillBetween.*?<path[^>]* d="([^"]*)"', each, re.DOTALL) for each in (both, one, none)]
    assert [[band.count("\n") for band in each] for each in bands] == [[9], [7], []]


ORDINARY = [[0.9], [0.6, 0.8], [0.7, 0.5, 0.9]]
RUNS = {
    "ordinary": ORDINARY,
    "of two steps": ORDINARY[:2],
    "of one step": ORDINARY[:1],
    "nothing right": [[0.0], [0.0, 0.0], [0.0, 0.0, 0.0]],
    "all right": [[1.0], [1.0, 1.0], [1.0, 1.0, 1.0]],
    "ever better": [[0.5], [0.6, 0.5], [0.9, 0.8, 0.5]],  # forgetting is -0.1 and -0.3
    "better and worse": [[0.5], [0.6, 0.5], [0.4, 0.4, 0.5]],
}


@pytest.mark.parametrize("name", RUNS)
def test_no_picture_warns_and_all_points_are_inside_it(name, tmp_path):
    epoch = {"phase": "main", "terms": {"L_D": 0.0, "other": -1.5}, "lr": 0.1}
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(epoch | {'step': n})}\n" for n in (1, 2)))
    (tmp_path / "results.json").write_text(results_of(RUNS[name]).to_text())
    run = RecordedRun(tmp_path)
    for chart in filter(None, (make([run], "") for make in CHARTS.values())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert png(chart)
            with _drawn(chart, LIGHT, "white") as figure:
                low, high = figure.axes[0].get_ylim()
        for line in chart.lines if isinstance(chart, Lines) else ():
            assert all(low <= y <= high for y in line.y if y is not None), (chart.name, line.y, low, high)
            assert low <= 0 <= high, "how far it is from nothing is seen"


@pytest.mark.parametrize("values", [[-0.1, -0.3], [0, -0.3], [-1e-9], [1e-9], [1e300, 1.0], [-1e300, 1e300], [5e-324]])
def test_whatever_the_values_are_there_is_room_for_them(values):
    chart = Lines("loss", "Loss", "x", "y", [Line("a", list(range(len(values))), values)])
    with warnings.catch_warnings(), _drawn(chart, LIGHT, "white") as figure:
        warnings.simplefilter("error")
        assert png(chart)
        low, high = figure.axes[0].get_ylim()
    assert low <= min(0, *values) < max(0, *values) <= high
    assert high - low <= 1.3 * (max(0, *values) - min(0, *values)) or max(map(abs, values)) < 1e-100


@pytest.mark.parametrize("chart", [LINES, HEAT], ids=["lines", "heat"])
def test_the_same_bytes_whatever_settings_a_person_has(chart):
    before = svg(chart)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9, "svg.hashsalt": "x"}):
        assert svg(chart) == before
        assert mpl.rcParams["font.size"] == 30


def test_text_stays_text_and_says_the_figures():
    drawn = svg(LINES)
    assert {"classes", "accuracy", "1", "2"} <= set(texts(drawn))
    assert '<svg role="img"' in drawn
    assert "<title>Accuracy</title>" in drawn
    assert f"<desc>lwmfw: {LINES.words}</desc>" in drawn


HOSTILE = ["<script>alert(1)</script>", "\u202egnp", "$x_1$", "\x1b[31m", "\ud800", "界" * 85, "a & b", '"x"']


def test_hostile_names_are_drawn_harmless():
    title, square = " ".join(HOSTILE), [[0.5] * len(HOSTILE)] * len(HOSTILE)
    charts = [
        Lines("time", title, "x", "y", [Line(name, [1, 2], [1.0, 2.0]) for name in HOSTILE]),
        Heat("confusion", title, "x", "y", square, title, HOSTILE, HOSTILE),
    ]
    for chart in charts:
        drawn = svg(chart)
        assert len(texts(drawn)) > len(HOSTILE)  # which is read as XML
        assert "$x_1$" in texts(drawn)
        assert "<script" not in drawn
        assert not re.search("[\x00-\x08\x1b\u202e\ud800]", drawn)
    assert png(charts[0]).startswith(b"\x89PNG")


def test_a_drawing_for_a_page_has_variables_for_colours_and_ids_of_its_own():
    odd = ["_hidden", "#010203", ' id="x"', "3", "4", "5", "6", "7"]
    lines = [Line(name, [1, 2], [n, n + 1.0]) for n, name in enumerate(odd)]
    drawn = page_svg(Lines("time", "Time", "x", "y", lines, borders=[1.5]), "one")
    assert {name.strip() for name in odd} <= {text.strip() for text in re.findall(">([^<]+)</text>", drawn)}
    assert {*re.findall(r"var\(--([a-z0-9-]+)\)", drawn)} == {"ink", "rule", *(f"series-{n}" for n in range(7))}
    assert not re.search("<[^>]*#010", drawn)
    assert not set(LIGHT.series) & set(re.findall("#[0-9a-f]{6}", drawn))
    ids = re.findall('<[^>]* id="([^"]+)"', drawn)
    assert all(each.startswith("one-") for each in ids)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawn)) <= {(i, "") for i in ids} | {("", i) for i in ids}


def contrast(one, two):
    """Of two colours, as WCAG 2 has it."""

    def luminance(colour):
        values = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("column", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(column):
    from lwmfw.showing.report import _COLOURS

    colours = {name: pair[column] for name, pair in _COLOURS.items()}
    for name in ("ink", "muted", "link", *(n for n in colours if n.startswith("series"))):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert contrast(colours["ink"], colours["raised"]) >= 4.5


def test_numbers_in_cells_stand_out_from_them():
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from lwmfw.showing.plots import _ink_on

    for value in range(101):
        cell = colormaps["viridis"](value / 100)[:3]
        assert contrast(to_hex(cell), to_hex(_ink_on(cell))) >= 4.5


def test_lines_differ_without_colour():
    from lwmfw.showing.plots import _DASHES, _MARKERS

    styles = {(_MARKERS[n % len(_MARKERS)], str(_DASHES[n % len(_DASHES)])) for n in range(30)}
    assert len(styles) == 30
