"""A picture of exemplars before and after they were changed, and of the change."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_CELL = 64  # pixels an image is enlarged to, at least
_GAP, _HEAD = 4, 24
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_LOUDER = 8  # times, so that a change of a few grey levels is seen


def before_and_after(before: Tensor, after: Tensor, names: Sequence[str], columns: int) -> bytes:
    """The picture as PNG: a row per class; its exemplars before and after, and eight times the difference on grey.

    Args:
        before: (R * columns, 1 or 3, H, W), uint8, `columns` exemplars of each of R classes.
        after: the same.
        names: of the R classes.
        columns: exemplars of a class.
    """
    change = 128 + _LOUDER * (after.float() - before.float())
    kinds = {"before": before, "after": after, f"change x {_LOUDER}": change.clamp(0, 255).byte()}
    blocks = {head: _enlarged(pixels) for head, pixels in kinds.items()}
    height, width = blocks["before"].shape[2:]
    font = ImageFont.load_default(14)
    left = _GAP + max(round(font.getlength(name)) for name in names) + 2 * _GAP
    block = columns * (width + _GAP) + 3 * _GAP
    sheet = Image.new("RGB", (left + len(blocks) * block, _HEAD + len(names) * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        draw.text((left - 2 * _GAP, _HEAD + row * (height + _GAP) + height / 2), name, _INK, font, anchor="rm")
    for place, (head, pixels) in enumerate(blocks.items()):
        x = left + place * block
        draw.text((x + columns * (width + _GAP) / 2, _HEAD / 2), head, _INK, font, anchor="mm")
        for number, cell in enumerate(pixels):
            row, column = divmod(number, columns)
            image = Image.fromarray(cell.permute(1, 2, 0).contiguous().numpy())
            sheet.paste(image, (x + column * (width + _GAP), _HEAD + row * (height + _GAP)))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def evenly_spread(labels: Tensor, most: int) -> tuple[Tensor, list[int], int]:
    """Which exemplars to show: the first few of some classes, those from the first class to the last.

    Args:
        labels: (N,), sorted.
        most: classes, and exemplars of each.

    Returns:
        Positions (R * columns,), the R classes, and columns.
    """
    classes, counts = labels.cpu().unique_consecutive(return_counts=True)
    rows = torch.linspace(0, len(classes) - 1, min(most, len(classes))).round().long()
    columns = min(most, int(counts[rows].min()))
    first = (counts.cumsum(0) - counts)[rows]
    return (first[:, None] + torch.arange(columns)).flatten(), classes[rows].tolist(), columns


def _enlarged(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) with every pixel repeated until an image is large enough to be looked at."""
    times = max(1, -(-_CELL // pixels.shape[2]))
    return torch.as_tensor(pixels).cpu().expand(-1, 3, -1, -1).repeat_interleave(times, 2).repeat_interleave(times, 3)
