"""Residual networks whose channels are gated while they learn, and cut out afterwards (DER, section 3.3).

A gate stands before each convolution of a block, and a last one where the features leave the network. The stream that
the shortcuts carry on is not gated, except there: a block reads some of its channels and adds to all of them. That is
a choice of ours; shortcuts without parameters leave no other one by which cutting changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lwmfw_plugins.backbones._resnet import Block, ResidualNetwork, Stage, small_stem

BEGIN = 2.0
"""Scores are drawn from 0 to here, so that all channels pass at first; a choice of ours. Channels that begin low are
the first to go; those of a layer that began alike would go together."""


def mask(scores: Tensor, sharpness: float) -> Tensor:
    """sigmoid(s e), equation 7, with the compensated gradient of equation 9.

    What that one divides out and multiplies in makes it the gradient of sigmoid(e), whatever s is: it is written so
    here, where nothing can overflow.

    Args:
        scores: e, (C,).
        sharpness: s, above 0.

    Returns:
        (C,), each in 0..1.
    """
    smooth = scores.sigmoid()
    return smooth + ((sharpness * scores).sigmoid() - smooth).detach()


def passing(scores: Tensor) -> Tensor:
    """Which channels pass once masks are binary: those of a score above 0, and always the best; (C,) -> (C,), bool."""
    return (scores > 0) | (scores == scores.amax())


def take_shape(tensor: Tensor, shape: Sequence[int]) -> None:
    """Let a parameter or buffer, which stays the object it is, have another shape; its values are undefined.

    Cut and reloaded weights lie in memory alike, or their networks would not compute the same bits.
    """
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    tensor.grad = None
    tensor.data = torch.empty(*shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)


def renumber(network: nn.Module) -> None:
    """Let convolutions and BatchNorms say of themselves what their weights are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[:2]
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = len(module.weight)


class Gate(nn.Module):
    """Channels times their masks; once it is closed, those that are kept.

    Masks are soft in training mode and binary in evaluation mode.

    Attributes:
        scores: e, (C,); of a closed gate none.
        kept: positions of the channels that stay, ascending; of an open gate none.
        sharpness: s.
    """

    kept: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.empty(channels).uniform_(0, BEGIN))
        self.register_buffer("kept", torch.empty(0, dtype=torch.int64))
        self.sharpness = 1.0

    @property
    def closed(self) -> bool:
        """Whether channels have been cut out."""
        return len(self.kept) > 0

    def mask(self) -> Tensor:
        """The masks of an open gate, (C,)."""
        return mask(self.scores, self.sharpness) if self.training else passing(self.scores).to(self.scores.dtype)

    def close(self) -> Tensor:
        """Keep the channels that pass for good; returns their positions."""
        self.kept = passing(self.scores).nonzero().flatten()
        take_shape(self.scores, [0])
        return self.kept

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; of a closed gate (B, kept, H, W), also where x has been cut already."""
        if not self.closed:
            return x * self.mask().to(x.dtype)[:, None, None]
        if x.shape[1] == len(self.kept):
            return x
        return x.permute(0, 2, 3, 1).index_select(3, self.kept).permute(0, 3, 1, 2)  # stays channels-last


class GatedBlock(Block):
    """A block with a gate before each of its convolutions.

    Attributes:
        leaves: a gate for what it adds up; the last block alone has one.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(channels, out, stride)
        first, relu, second = self.body
        self.body = nn.Sequential(Gate(channels), first, relu, Gate(out), second)
        self.leaves: nn.Module = nn.Identity()

    @property
    def pairs(self) -> tuple[Gate, nn.Sequential, Gate, nn.Sequential]:
        """The gates, and behind each of them its convolution and BatchNorm."""
        reads, first, _, between, second = self.body
        return reads, first, between, second  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H/stride, W/stride); behind a closed gate fewer than `out`."""
        return self.leaves(self.body(x)).add_(self.leaves(self.shortcut(x)))  # type: ignore[no-any-return]


class GatedResNet(ResidualNetwork):
    """`ResNet` with gates: three stages, features (B, 4*width), fewer once it is cut."""

    def __init__(self, channels: int, blocks: int, width: int) -> None:
        stages = [Stage(blocks, width, 1), Stage(blocks, 2 * width, 2), Stage(blocks, 4 * width, 2)]
        super().__init__(small_stem(channels, width), GatedBlock, stages)
        *_, last = self.blocks()
        last.leaves = Gate(last.channels)

    def gated(self) -> Iterator[GatedBlock]:
        """All blocks, from the images to the features."""
        return self.blocks()  # type: ignore[return-value]

    def gates(self) -> list[Gate]:
        """All gates."""
        return [module for module in self.modules() if isinstance(module, Gate)]

    def sparsity(self) -> Tensor:
        """The share of the convolutions' weights that masks leave in use, 0..1 (equation 10).

        The first convolution reads the image and writes the stream, and is always in use as a whole.
        """
        whole = _weights(self.stem)
        used = torch.tensor(whole, dtype=torch.float32)  # a scalar, which goes with any device
        for block in self.gated():
            reads, first, between, second = block.pairs
            middle = between.mask().mean()
            out = block.leaves.mask().mean() if isinstance(block.leaves, Gate) else 1.0
            used = used + middle * (reads.mask().mean() * _weights(first) + out * _weights(second))
            whole += _weights(first) + _weights(second)
        return used / whole

    def cut_out(self) -> Tensor:
        """Make masks binary and cut out every channel that does not pass; returns the features that stay."""
        kept: Tensor | None = None
        with torch.no_grad():
            for block in self.gated():
                reads, first, between, second = block.pairs
                middle = between.close()
                kept = block.leaves.close() if isinstance(block.leaves, Gate) else None
                _cut(first, reads.close(), middle)
                _cut(second, middle, kept)
        renumber(self)
        assert kept is not None, "the last block has a gate behind it"  # noqa: S101
        return kept


def _weights(pair: nn.Sequential) -> int:
    """How many weights a convolution has."""
    return int(pair[0].weight.numel())  # type: ignore[operator]


def _cut(pair: nn.Sequential, inputs: Tensor, outputs: Tensor | None) -> None:
    """Keep some inputs and outputs, or all of these, of a convolution and of the BatchNorm behind it."""
    convolution, norm = pair
    rows = slice(None) if outputs is None else outputs
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        _put(tensor, tensor[rows])  # type: ignore[arg-type, index]
    _put(convolution.weight, convolution.weight[rows][:, inputs])  # type: ignore[arg-type, index]


def _put(tensor: Tensor, value: Tensor) -> None:
    value = value.clone()
    take_shape(tensor, value.shape)
    tensor.copy_(value)
