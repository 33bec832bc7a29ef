"""POD: pooled outputs distillation of every stage (PODNet, Douillard et al., ECCV 2020, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Options, Penalty, UserError, hookimpl
from lwmfw_plugins.penalties._adaptive import FORMS, Adaptive, adaptive_factor

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Outputs, Run, Step

Mode = Literal["spatial", "width", "height", "channels", "gap", "pixel"]


def pooled(maps: Tensor, mode: Mode) -> Tensor:
    """Maps as vectors that forget where, along some of their axes, something was.

    Modes are named as in the paper, after the axis that is summed over. In the authors' code width and height are
    swapped: it reads PyTorch's (B, C, H, W) as (B, C, W, H). The paper's spatial term is the sum of those of width and
    height, which the squared distance of the concatenation is too.

    Args:
        maps: (B, C, H, W).
        mode: width sums over W, height over H, channels over C; spatial concatenates width and height; gap is the mean
            over both; pixel pools nothing.

    Returns:
        (B, L), positions before channels, where L is C*H for width, C*W for height, C*(H + W) for spatial, H*W for
        channels, C for gap, and C*H*W for pixel.
    """
    import torch

    if mode == "spatial":
        return torch.cat([pooled(maps, "width"), pooled(maps, "height")], 1)
    if mode == "gap":
        return maps.mean((2, 3))
    # the order in which channels-last maps lie in memory: no sum and no gradient is gathered from afar
    axes, maps = {"height": 1, "width": 2, "channels": 3}, maps.permute(0, 2, 3, 1)
    return (maps.sum(axes[mode]) if mode in axes else maps).flatten(1)


def pod_distance(
    new: Tensor, old: Tensor, mode: Mode, *, square: bool = True, normalise: bool = True, squared_norm: bool = False
) -> Tensor:
    """Distance of the pooled maps of one stage, averaged over the batch.

    The defaults are what the published numbers were made with. The paper's formulas square the distance, and neither
    the activations nor normalise.

    Args:
        new: (B, C, H, W), of any floating type; computed in float32 at least.
        old: (B, C, H, W), likewise.
        mode: see `pooled`.
        square: whether activations are squared before they are pooled.
        normalise: whether each image's vector is brought to length 1.
        squared_norm: whether distances are squared.

    Returns:
        A scalar, zero for equal maps. Normalised, distances are at most 2, and sqrt(2) if activations are squared. A
        distance that is not squared has a gradient of the same length however small it is, and none at zero.
    """
    import torch
    from torch.linalg import vector_norm
    from torch.nn.functional import normalize

    from lwmfw_plugins.penalties._energies import Energies

    def vectors(maps: Tensor) -> Tensor:
        if square and mode == "spatial":  # as published: the same sums, whose gradient is one pass
            vector = torch.cat([sums.flatten(1) for sums in Energies.apply(maps)], 1)
        else:
            maps = maps.float() if maps.dtype.itemsize < 4 else maps  # computed in bf16
            vector = pooled(maps * maps if square else maps, mode)
        return normalize(vector) if normalise else vector

    difference = vectors(new) - vectors(old)
    return (difference.square().sum(1) if squared_norm else vector_norm(difference, dim=1)).mean()


class PodOptions(Options):
    """Options of POD."""

    weight: float = Field(
        3.0, ge=0, le=1e6, description="factor of the term (lambda_c); PODNet: CIFAR 3, by NME 5; ImageNet 8"
    )
    mode: Mode = Field("spatial", description="what is summed over; spatial: width and height separately")
    square: bool = Field(True, description="square activations before pooling, as in PODNet's code; its paper: false")
    normalise: bool = Field(True, description="scale pooled vectors to length 1, as in PODNet's code; its paper: false")
    squared_norm: bool = Field(False, description="square the distance, as in PODNet's paper; its code: false")
    layers: Literal["all", "all-but-last"] = Field(
        "all", description="stages whose distances are averaged; all: PODNet's code; all-but-last: its paper"
    )
    adaptive: Adaptive = Field("podnet", description=f"factor of the weight. {FORMS}. PODNet's numbers: podnet")


class PooledOutputsDistillation:
    """Keep each stage's activations, summed over rows and over columns, close to the old model's.

    Maps are compared before a stage's last ReLU: PODNet's network has none there, and its numbers need the negative
    part. The new model is in training mode, the old one in evaluation mode: BatchNorm's batch statistics alone keep
    the term above zero.
    """

    needs = frozenset({"old", "raw_maps"})
    spares_first_step = True

    def __init__(self, options: PodOptions) -> None:
        self.options = options
        self.stages = slice(None) if options.layers == "all" else slice(-1)

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Refuse to average over no stage."""
        if not range(run.model.stages)[self.stages]:
            raise UserError('layers: the backbone has one stage, which is the last; set "all"')

    @hookimpl
    def compute_penalty(self, step: Step, new: Outputs, old: Outputs) -> dict[str, Tensor]:
        """The term POD."""
        import torch

        options = self.options
        forms = {"square": options.square, "normalise": options.normalise, "squared_norm": options.squared_norm}
        stages = zip(new.raw_maps[self.stages], old.raw_maps[self.stages], strict=True)
        loss = torch.stack([pod_distance(a, b, options.mode, **forms) for a, b in stages]).mean()
        return {"POD": options.weight * adaptive_factor(options.adaptive, step) * loss}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("POD", PooledOutputsDistillation, PodOptions)
