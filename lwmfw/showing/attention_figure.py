"""The figure of attention: a row for each image and run, a column for each step, the heat of all on one scale."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from lwmfw.errors import UserError, shown
from lwmfw.record.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lwmfw.showing.glances import Explanation, Glance, Row

Form = Literal["png", "svg"]

MARK = "lwmfw explain"
"""By which a file is known to be such a figure."""

_FORMS: dict[str, Form] = {".png": "png", ".svg": "svg"}

_INK, _MUTED, _OTHER, _PANEL = "#1a1a1a", "#5f5f5f", "#b3400f", "#efefef"
_CELL, _CAPTION, _GAP = 1.3, 0.42, 0.1  # inches
_HEAD, _TITLE, _FOOT = 0.3, 0.5, 0.75
_DOTS = 224  # of an image's shorter side, at least
_HEAT = 0.7  # of a cell's colour; the rest is the image, in grey


def drawn(explanations: Sequence[Explanation], form: Form) -> bytes:
    """A figure as a file, the same bytes for the same explanations."""
    metadata: dict[str, Any] = {"Software": MARK} if form == "png" else {"Creator": MARK, "Date": None}
    stream = io.BytesIO()
    settings = {"svg.hashsalt": MARK, "svg.fonttype": "path", "text.parse_math": False, "font.size": 8}
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a name in letters that the font lacks
        figure_of(explanations).savefig(stream, format=form, metadata=metadata, dpi=150)
    return stream.getvalue()


def check_place(file: Path) -> None:
    """See that a figure can be written there.

    Raises:
        UserError: its suffix is of no form, its folder is not there, or there is a file that is no such figure.
    """
    if file.suffix.lower() not in _FORMS:
        raise UserError(f"{shown(str(file), 1000)}: a figure is PNG or SVG; let the name end with .png or .svg")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{shown(str(file), 1000)}: its folder does not exist; make it, or choose another --out")
    if os.path.lexists(file) and not _is_ours(file):
        raise UserError(f"{shown(str(file), 1000)}: is there, and no figure of `{MARK}`; choose another --out")


def write_figure(file: Path, explanations: Sequence[Explanation]) -> None:
    """Write a figure, in the place of an earlier one.

    Raises:
        UserError: as `check_place`.
        DiskFailed: it cannot be written.
    """
    check_place(file)
    write_bytes(file, drawn(explanations, _FORMS[file.suffix.lower()]))


def _is_ours(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return MARK.encode() in stream.read(4096)


def figure_of(explanations: Sequence[Explanation]) -> Figure:
    """A figure: for each image a title and a row for each run, before it the image, under each map what the run says.

    All maps are on one scale, from nothing to the strongest place of any.
    """
    steps = sorted({step for each in explanations for step in each.steps})
    names = [shown(row.name, 40) for each in explanations for row in each.rows]
    left = 0.2 + 0.075 * max(map(len, names))
    width = left + (len(steps) + 1) * (_CELL + _GAP) + _GAP
    blocks = [_TITLE + _HEAD + len(each.rows) * (_CELL + _CAPTION) for each in explanations]
    height = sum(blocks) + _FOOT
    figure = Figure((width, height), facecolor="white")
    strongest = max(
        (float(g.attention.max()) for e in explanations for r in e.rows for g in r.glances if g.attention is not None),
        default=0.0,
    )
    strongest = strongest or 1.0

    def axes(column: float, top: float) -> Axes:
        x = left + column * (_CELL + _GAP)
        return figure.add_axes((x / width, 1 - (top + _CELL) / height, _CELL / width, _CELL / height))

    def text(x: float, y: float, said: str, **how: Any) -> None:
        figure.text(x / width, 1 - y / height, said, **{"va": "center", "color": _INK} | how)

    top = 0.0
    for each, block in zip(explanations, blocks, strict=True):
        text(left, top + 0.3, _title(each), fontsize=10)
        heads = top + _TITLE + _HEAD / 2
        for column, head in enumerate(["image", *(f"step {step}" for step in steps)]):
            text(left + column * (_CELL + _GAP) + _CELL / 2, heads, head, ha="center", color=_MUTED)
        for number, row in enumerate(each.rows):
            y = top + _TITLE + _HEAD + number * (_CELL + _CAPTION)
            text(left - 0.12, y + _CELL / 2, shown(row.name, 40), ha="right", fontsize=9)
            _show(axes(0, y), _rgb(row.pixels))
            of_step = {glance.step: glance for glance in row.glances}
            for column, step in enumerate(steps, 1):
                glance = of_step.get(step)
                where = axes(column, y)
                if glance is None or glance.attention is None:
                    _empty(where, _why_empty(row, step, glance))
                else:
                    _show(where, _under_heat(row.pixels, glance.attention / strongest))
                if glance is not None:
                    x = left + column * (_CELL + _GAP) + _CELL / 2
                    other = glance.says is None or glance.says.name != each.wanted
                    text(x, y + _CELL + 0.11, _says(glance), ha="center", fontsize=7, color=_OTHER if other else _INK)
                    text(x, y + _CELL + 0.25, _drift(glance), ha="center", fontsize=7, color=_MUTED)
        top += block
    _legend(figure, left / width, height, strongest)
    return figure


def _title(each: Explanation) -> str:
    because = {"asked for": "", "its own": " (its class)", "said": " (what is said at the end)"}[each.because]
    return f"attention to “{shown(each.wanted, 40)}”{because} in {shown(Path(each.image).name, 60)}"


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


def _legend(figure: Figure, left: float, height: float, strongest: float) -> None:
    """The scale of heat as it lies over grey, and what the captions say."""
    axes = figure.add_axes((left, 0.42 / height, 0.25, 0.1 / height))
    scale = ScalarMappable(Normalize(0, strongest), _over_grey(_colours()))
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    axes.tick_params(length=2, labelsize=7, colors=_MUTED)
    said = (
        "attention, scaled to length 1, on one scale for all maps\n"
        "below a map: what the run says the image is, and the l1 distance of the map to the row's first"
    )
    figure.text(left + 0.27, 0.42 / height, said, fontsize=7, va="center", color=_MUTED, linespacing=1.6)


def _colours() -> Colormap:
    """From dark to light at an even pace, which is told apart without red and green."""
    return mpl.colormaps["viridis"]


def _over_grey(colours: Colormap) -> ListedColormap:
    return ListedColormap(_HEAT * colours(np.linspace(0, 1, 256))[:, :3] + (1 - _HEAT) * 0.5)


def _rgb(pixels: Tensor) -> Tensor:
    """An image (C, H, W) as (H', W', 3) in 0..1, enlarged by repeating pixels; of two channels the mean, of more than
    three the first three."""
    if len(pixels) == 2:
        pixels = pixels.float().mean(0, keepdim=True)
    times = max(1, -(-_DOTS // min(pixels.shape[1:])))
    large = pixels[:3].float().div(255).expand(3, -1, -1).repeat_interleave(times, 1).repeat_interleave(times, 2)
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
