"""The decoder of mecil: three small convolutions that add to a restored image what the images it was trained on lacked.

They work at half the resolution, where squares of four pixels are channels: a quarter of the work, and a view of 14
pixels. Without a trained last layer nothing is added.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, mse_loss, pad, pixel_shuffle, pixel_unshuffle

from lwmfw_plugins.codecs.mecil._transform import CENTRE

_SPREAD = 64.0  # grey levels that the network takes and gives as 1
_PART = 2**16  # pixels of a batch
_RATE = 2e-3

Layer = tuple[Tensor, Tensor]
"""Weights (out, in, 3, 3) and biases (out,)."""
Layers = Sequence[Layer]
"""From first to last."""


def untrained(channels: int, width: int) -> list[Layer]:
    """Layers of zeros, which add nothing, for images of so many channels."""
    sizes = [4 * channels, width, width, 4 * channels]
    return [(torch.zeros(b, a, 3, 3), torch.zeros(b)) for a, b in itertools.pairwise(sizes)]


def drawn(layers: Layers, rng: Generator) -> list[Layer]:
    """New weights for all layers but the last, which stays as it is."""
    *hidden, last = layers
    return [(torch.nn.init.kaiming_uniform_(w.clone(), generator=rng), b) for w, b in hidden] + [last]


def refined(images: Tensor, layers: Layers) -> Tensor:
    """Restored images (N, C, H, W) within 0..255, any size, and what the decoder adds to them; not clamped."""
    if not layers:
        return images
    height, width = images.shape[2:]
    x = pixel_unshuffle((pad(images, (0, width % 2, 0, height % 2), mode="replicate") - CENTRE) / _SPREAD, 2)
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = conv2d(x, w, b, padding=1).relu()
    added = pixel_shuffle(conv2d(x, weight, bias, padding=1), 2)
    return images + _SPREAD * added[..., :height, :width]


def trained(layers: Layers, restored: Tensor, originals: Tensor, epochs: int, rng: Generator) -> list[Layer]:
    """Layers after some epochs of Adam on the squared error, its rate falling to 0 in a line.

    Args:
        layers: on the device of the images, float32.
        restored: (N, C, H, W), float32, what the decoder is given.
        originals: (N, C, H, W), float32, what it is to make of them.
        epochs: passes over them.
        rng: draws their order, on the CPU.
    """
    layers = [(w.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()) for w, b in layers]
    optimizer = torch.optim.Adam([value for layer in layers for value in layer], _RATE)
    size = max(1, _PART // originals[0, 0].numel())
    orders = [part for _ in range(epochs) for part in torch.randperm(len(originals), generator=rng).split(size)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / len(orders))
    with torch.enable_grad():
        for order in orders:
            part = order.to(originals.device)
            loss = mse_loss(refined(restored[part], layers) / _SPREAD, originals[part] / _SPREAD)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return [(w.detach(), b.detach()) for w, b in layers]
