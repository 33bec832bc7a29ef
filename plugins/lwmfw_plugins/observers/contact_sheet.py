"""A picture of images and of where models looked in them: one row per image, one column per step."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

CELL = 112  # pixels an image is enlarged to, at least
GAP, HEAD, CAPTION = 6, 26, 20
INK, PAPER = (32, 32, 32), (255, 255, 255)
HEAT = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])  # none to strongest


def contact_sheet(pixels: Tensor, maps: Tensor, names: list[str], captions: list[list[str]]) -> bytes:
    """The picture as PNG.

    Args:
        pixels: (R, 1 or 3, H, W), uint8.
        maps: (R, S, h, w), not negative: where the model of each of S steps looked; each is scaled to its maximum.
        names: what stands before each row.
        captions: what stands below each map, S for each row.
    """
    rows, steps = maps.shape[:2]
    images = pixels.expand(-1, 3, -1, -1).repeat_interleave(-(-CELL // pixels.shape[2]), 2)
    images = images.repeat_interleave(-(-CELL // pixels.shape[3]), 3).float()
    height, width = images.shape[2:]
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    left = GAP + max(round(font.getlength(name)) for name in names) + GAP
    size = left + (1 + steps) * (width + GAP), HEAD + rows * (height + CAPTION + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(["image", *(f"step {n}" for n in range(1, steps + 1))]):
        x = left + column * (width + GAP)
        draw.text((x + width / 2, HEAD / 2), head, INK, font, anchor="mm")
        for row in range(rows):
            y = HEAD + row * (height + CAPTION + GAP)
            cell = images[row] if column == 0 else overlay(images[row], maps[row, column - 1])
            sheet.paste(Image.fromarray(cell.byte().permute(1, 2, 0).numpy()), (x, y))
            if column == 0:
                draw.text((left - GAP, y + height / 2), names[row], INK, font, anchor="rm")
            else:
                draw.text((x + width / 2, y + height + CAPTION / 2), captions[row][column - 1], INK, small, anchor="mm")
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def overlay(image: Tensor, attention: Tensor) -> Tensor:
    """An image (3, H, W), 0..255, under the heat of a map (h, w); a map of zeros leaves it as it is."""
    heat = attention / attention.max().clamp(min=1e-12)
    heat = interpolate(heat[None, None], image.shape[1:], mode="bilinear")[0, 0].clamp(0, 1)
    place = heat * (len(HEAT) - 1)
    below = place.long().clamp(max=len(HEAT) - 2)
    colour = HEAT[below] + (place - below)[..., None] * (HEAT[below + 1] - HEAT[below])
    return image + 0.8 * heat * (colour.permute(2, 0, 1) - image)
