"""Sums of squared activations over rows and over columns, with a gradient in one pass over the maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Energies(torch.autograd.Function):
    """Squared activations summed over the width, and summed over the height.

    Composed of PyTorch's own operators, the gradient of the two sums is written out at the size of the maps twice,
    added, multiplied by the maps twice and added again. It is 2 maps * (a + b), which is one product.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over W, (B, H, C), and over H, (B, W, C), in float32 at least.

        Args:
            ctx: keeps the maps for the gradient.
            maps: (B, C, H, W), of any floating type, best channels-last in memory, as the gradient is.
        """
        ctx.save_for_backward(maps)
        images = maps.permute(0, 2, 3, 1)
        squares = images.float().square_() if maps.dtype.itemsize < 4 else images.square()
        return squares.sum(2), squares.sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of the maps, of their type; of operators, so that it has a gradient itself."""
        maps: Tensor = ctx.saved_tensors[0]
        over_width, over_height = gradients
        sums = (2 * over_width).unsqueeze(2) + (2 * over_height).unsqueeze(1)
        return (sums * maps.permute(0, 2, 3, 1)).to(maps.dtype).permute(0, 3, 1, 2)
