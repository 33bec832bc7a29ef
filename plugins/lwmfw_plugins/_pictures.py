"""Pictures of images in rows: where models looked in them, step by step; exemplars before and after a change."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

_GAP, _HEAD, _CAPTION = 6, 26, 20
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_LARGE, _SMALL = 112, 64  # pixels an image is enlarged to, at least
_HEAT = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])  # none to strongest
_LOUDER = 8  # times, so that a change of a few grey levels is seen


def attention_sheet(pixels: Tensor, maps: Tensor, names: list[str], captions: list[list[str]]) -> bytes:
    """Images and where models looked in them, as PNG: one row per image, one column per step.

    Args:
        pixels: (R, C, H, W), uint8.
        maps: (R, S, h, w), not negative: where the model of each of S steps looked; each is scaled to its maximum.
        names: what stands before each row.
        captions: what stands below each map, S for each row.
    """
    images = _enlarged(pixels, _LARGE)
    blocks = {"image": images[:, None]}
    for column in range(maps.shape[1]):
        seen = [overlay(image, attention) for image, attention in zip(images, maps[:, column], strict=True)]
        blocks[f"step {column + 1}"] = torch.stack(seen).byte()[:, None]
    return _grid(blocks, names, [["", *row] for row in captions])


def before_and_after(before: Tensor, after: Tensor, names: Sequence[str], columns: int) -> bytes:
    """Exemplars as PNG: a row per class; before and after a change, and eight times the difference on grey.

    Args:
        before: (R * columns, C, H, W), uint8, `columns` exemplars of each of R classes.
        after: the same.
        names: of the R classes.
        columns: exemplars of a class.
    """
    change = 128 + _LOUDER * (after.float() - before.float())
    kinds = {"before": before, "after": after, f"change x {_LOUDER}": change.clamp(0, 255).byte()}
    return _grid({head: _enlarged(p, _SMALL).unflatten(0, (-1, columns)) for head, p in kinds.items()}, names)


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


def overlay(image: Tensor, attention: Tensor) -> Tensor:
    """An image (3, H, W), 0..255, under the heat of a map (h, w); a map of zeros leaves it as it is."""
    heat = attention / attention.max().clamp(min=1e-12)
    heat = interpolate(heat[None, None], image.shape[1:], mode="bilinear")[0, 0].clamp(0, 1)
    place = heat * (len(_HEAT) - 1)
    below = place.long().clamp(max=len(_HEAT) - 2)
    colour = _HEAT[below] + (place - below)[..., None] * (_HEAT[below + 1] - _HEAT[below])
    return image + 0.8 * heat * (colour.permute(2, 0, 1) - image)


def _grid(blocks: dict[str, Tensor], names: Sequence[str], captions: Sequence[Sequence[str]] = ()) -> bytes:
    """Rows of images under heads.

    Args:
        blocks: head -> (R, columns, 3, H, W), uint8; every block has as many columns.
        names: what stands before each row.
        captions: below each block of a row.
    """
    rows, columns, _, height, width = next(iter(blocks.values())).shape
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    left = _GAP + max(round(font.getlength(name)) for name in names) + 2 * _GAP
    block = columns * (width + _GAP) + (2 * _GAP if columns > 1 else 0)
    row_height = height + (_CAPTION if captions else 0) + _GAP
    sheet = Image.new("RGB", (left + len(blocks) * block, _HEAD + rows * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        draw.text((left - 2 * _GAP, _HEAD + row * row_height + height / 2), name, _INK, font, anchor="rm")
    for number, (head, cells) in enumerate(blocks.items()):
        x = left + number * block
        middle = x + columns * (width + _GAP) / 2
        draw.text((middle, _HEAD / 2), head, _INK, font, anchor="mm")
        for row in range(rows):
            y = _HEAD + row * row_height
            for column in range(columns):
                pixels = cells[row, column].permute(1, 2, 0).contiguous().numpy()
                sheet.paste(Image.fromarray(pixels), (x + column * (width + _GAP), y))
            if captions:
                draw.text((middle, y + height + _CAPTION / 2), captions[row][number], _INK, small, anchor="mm")
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _enlarged(pixels: Tensor, least: int) -> Tensor:
    """(N, 3, H, W) with every pixel repeated until an image is large enough to be looked at.

    Grey is shown as grey, of more than three channels the first three, of two their mean.
    """
    if pixels.shape[1] == 2:
        pixels = pixels.float().mean(1, keepdim=True).byte()
    times = max(1, -(-least // min(pixels.shape[2:])))
    return pixels[:, :3].cpu().expand(-1, 3, -1, -1).repeat_interleave(times, 2).repeat_interleave(times, 3)
