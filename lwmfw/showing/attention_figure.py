"""The figure of attention: a row for each image and run, a column for each step, the heat of all on one scale."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import torch
from matplotlib import style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from lwmfw.errors import UserError, shown
from lwmfw.record.files import write_bytes
from lwmfw.showing.exemplars import in_colours
from lwmfw.showing.files import Form, check_place, form_of
from lwmfw.showing.plots import with_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lwmfw.showing.glances import Explanation, Glance, Row

MARK = "lwmfw explain"
"""What files say that they were made by."""

_INK, _MUTED, _OTHER, _PANEL = "#1a1a1a", "#5f5f5f", "#b3400f", "#efefef"
_CELL, _GAP, _ROW, _TITLE, _FOOT, _NARROWEST = 1.4, 0.1, 1.82, 0.86, 1.0, 4.9  # inches
_DOTS, _PER_INCH = 224, 160  # of an image's shorter side, at least: a cell has as many
_MOST = 2**15 / _PER_INCH  # inches; what draws can do twice that
_HEAT = 0.7  # of a cell's colour; the rest is the image, in grey
_TIMES, _BANDS = 3, 4  # the scale of colours ends at so many times an even map; bands of colour in each of them


_LEGEND = (
    "in units of the attention there would be if it were spread evenly",
    "below a map: what the run says the image is, with probability or score; in red: another class",
    "drift: how far attention is from the row's first map (l1 distance of maps of length 1)",
)


def drawn(explanations: Sequence[Explanation], form: Form) -> bytes:
    """A figure as a file, the same bytes for the same explanations."""
    metadata: dict[str, Any] = {"Software": MARK} if form == "png" else {"Creator": MARK, "Date": None}
    stream = io.BytesIO()
    settings = {"svg.hashsalt": MARK, "svg.fonttype": "path", "text.parse_math": False, "font.size": 8}
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a name in letters that the font lacks
        figure_of(explanations).savefig(stream, format=form, metadata=metadata, dpi=_PER_INCH)
    if form == "png":
        return stream.getvalue()
    return with_words(stream.getvalue().decode(), "Where runs look in images", in_words(explanations)).encode()


def in_words(explanations: Sequence[Explanation]) -> str:
    """What the figure says below its maps, for who does not see it."""
    said = []
    for each in explanations:
        said.append(f"Attention to {shown(each.wanted, 40)} in {shown(Path(each.image).name, 60)}.")
        for row in each.rows:
            steps = (", ".join(filter(None, (f"step {g.step}", _says(g), _drift(g)))) for g in row.glances)
            said.append(f"{_name(row)}, {shown(row.readout, 20)}: {'; '.join(steps)}.")
    return " ".join(said)


def write_figure(file: Path, explanations: Sequence[Explanation]) -> None:
    """Write a figure, in the place of an earlier one.

    Raises:
        UserError: as `form_of` and `check_place`.
        DiskFailed: it cannot be written.
    """
    form = form_of(file)
    check_place(file)
    write_bytes(file, drawn(explanations, form), named=True)


def figure_of(explanations: Sequence[Explanation]) -> Figure:
    """A figure: for each image a title and a row for each run, before it the image, under each map what the run says.

    All maps are on one scale, which is that of every such figure: from no attention to three times what there would be
    if it were spread evenly.
    """
    sheet = _Sheet(explanations)
    top = 0.0
    for each in explanations:
        sheet.title(top, each)
        top += _TITLE
        for row in each.rows:
            sheet.row(top, row, each.wanted)
            top += _ROW
    sheet.legend(top)
    return sheet.figure


class _Sheet:
    """A figure with room for explanations; places on it are inches from its left and from its top.

    Raises:
        UserError: there are too many.
    """

    def __init__(self, explanations: Sequence[Explanation]) -> None:
        self.steps = sorted({step for each in explanations for step in each.steps})
        longest = max(len(_name(row)) for each in explanations for row in each.rows)
        self.left = 0.25 + 0.075 * longest
        self.width = max(self._x(len(self.steps) + 1), self.left + _NARROWEST)
        self.height = sum(_TITLE + len(each.rows) * _ROW for each in explanations) + _FOOT
        if max(self.width, self.height) > _MOST:
            rows = sum(len(each.rows) for each in explanations)
            raise UserError(
                f"a figure of {rows} rows and {len(self.steps)} steps is too large to be drawn; name fewer images, or "
                "take the numbers alone with --json"
            )
        self.figure = Figure((self.width, self.height), facecolor="white")

    def _x(self, column: int) -> float:
        return self.left + column * (_CELL + _GAP)

    def axes(self, x: float, y: float, width: float = _CELL, height: float = _CELL) -> Axes:
        """A place to draw in, by its upper left corner."""
        shares = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        return self.figure.add_axes(shares)

    def text(self, x: float, y: float, said: str, **how: Any) -> None:
        """A line of text, set about the middle of its height."""
        self.figure.text(x / self.width, 1 - y / self.height, said, **{"va": "center", "color": _INK} | how)

    def title(self, y: float, each: Explanation) -> None:
        """What is looked for in which image, and the heads of the columns."""
        because = {"asked for": "", "its own": ", its class", "said": ", as is said at the end"}[each.because]
        self.text(self.left, y + 0.28, f"attention to “{shown(each.wanted, 40)}”{because}", fontsize=10)
        self.text(self.left, y + 0.48, shown(Path(each.image).name, 60), color=_MUTED)
        for column, head in enumerate(["image", *(f"step {step}" for step in self.steps)]):
            self.text(self._x(column) + _CELL / 2, y + _TITLE - 0.12, head, ha="center", color=_MUTED)

    def row(self, y: float, row: Row, wanted: str) -> None:
        """A run: the image as it sees it, and a cell for each step."""
        self.text(self.left - 0.12, y + _CELL / 2 - 0.07, _name(row), ha="right", fontsize=9)
        self.text(self.left - 0.12, y + _CELL / 2 + 0.1, shown(row.readout, 20), ha="right", fontsize=7, color=_MUTED)
        _show(self.axes(self.left, y), _rgb(row.pixels))
        glances = {glance.step: glance for glance in row.glances}
        for column, step in enumerate(self.steps, 1):
            glance, place = glances.get(step), self.axes(self._x(column), y)
            if glance is None or glance.attention is None:
                _empty(place, _why_empty(row, step, glance))
            else:
                _show(place, _under_heat(row.pixels, _heat(glance.attention)))
            if glance is not None:
                middle, other = self._x(column) + _CELL / 2, glance.says is None or glance.says.name != wanted
                colour = _OTHER if other else _INK
                self.text(middle, y + _CELL + 0.11, _says(glance), ha="center", fontsize=7, color=colour)
                self.text(middle, y + _CELL + 0.25, _drift(glance), ha="center", fontsize=7, color=_MUTED)

    def legend(self, y: float) -> None:
        """The scale of heat as it lies over grey, and what the captions say."""
        axes = self.axes(self.left, y + 0.12, 2 * _CELL + _GAP, 0.1)
        scale = ScalarMappable(Normalize(0, _TIMES), _over_grey(_colours()))
        bar = self.figure.colorbar(scale, cax=axes, orientation="horizontal", extend="max", ticks=range(_TIMES + 1))
        bar.outline.set_visible(False)
        axes.tick_params(length=2, labelsize=7, colors=_MUTED)
        for number, line in enumerate(_LEGEND):
            self.text(self.left, y + 0.5 + 0.15 * number, line, fontsize=7, color=_MUTED)


def _name(row: Row) -> str:
    return shown(row.name, 60)


def _why_empty(row: Row, step: int, glance: Glance | None) -> str:
    if glance is not None:
        return "does not know\nthe class yet"
    return "not kept" if step in row.not_kept else "no such step"


def _says(glance: Glance) -> str:
    if glance.says is None:
        return "says nothing"
    value = glance.says.score if glance.says.probability is None else glance.says.probability
    return f"{shown(glance.says.name, 16)} {value:.2f}"


def _drift(glance: Glance) -> str:
    if glance.attention is None:
        return ""
    if glance.dead:
        return "no attention"
    return "no first map" if glance.l1 is None else f"drift {glance.l1:.2f}"


def _heat(attention: Tensor) -> Tensor:
    """A map of length 1 (H, W) as 0..1 of the scale of colours: where it is even it has 1 / sqrt(H W) everywhere."""
    even = attention.numel() ** -0.5
    return attention.div(even * _TIMES).clamp(max=1)


def _colours() -> Colormap:
    """From dark to light at an even pace, which is told apart without red and green; in bands, which show heights."""
    return mpl.colormaps["viridis"].resampled(_BANDS * _TIMES)


def _over_grey(colours: Colormap) -> ListedColormap:
    return ListedColormap(_HEAT * colours(range(colours.N))[:, :3] + (1 - _HEAT) * 0.5)


def _rgb(pixels: Tensor) -> Tensor:
    """An image (C, H, W) as (H', W', 3) in 0..1, enlarged by repeating pixels."""
    times = max(1, -(-_DOTS // min(pixels.shape[1:])))
    large = in_colours(pixels).float().div(255).repeat_interleave(times, 1).repeat_interleave(times, 2)
    return large.permute(1, 2, 0)


def _under_heat(pixels: Tensor, heat: Tensor) -> Tensor:
    """An image in grey under the colours of a map (h, w) in 0..1, (H', W', 3)."""
    image = _rgb(pixels).mean(2, keepdim=True)
    smooth = interpolate(heat[None, None], image.shape[:2], mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
    colours = torch.from_numpy(_colours()(smooth.numpy())[..., :3])
    return _HEAT * colours + (1 - _HEAT) * image


def _show(axes: Axes, image: Tensor) -> None:
    axes.imshow(image.numpy(), interpolation="nearest")
    axes.set_axis_off()


def _empty(axes: Axes, why: str) -> None:
    axes.set(xticks=[], yticks=[], facecolor=_PANEL)
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=7, color=_MUTED, transform=axes.transAxes)
