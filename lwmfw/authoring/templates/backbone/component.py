"""Three convolutions, for first tries and small images."""

from itertools import pairwise
from torch import nn
from lwmfw import Backbone, Features, Field, Options, hookimpl


class Conv3Options(Options):
    width: int = Field(32, ge=1, le=1024, description="channels of the first stage")


class Stages(nn.ModuleList):
    def __init__(self, *sizes):
        super().__init__(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in pairwise(sizes))

    def forward(self, images):
        maps, raw_maps = [images], []
        for stage in self:
            raw_maps.append(stage(maps[-1]))
            maps.append(raw_maps[-1].relu())
        return Features(maps[-1].mean((2, 3)), maps[1:], raw_maps, maps[-1])


class Conv3:
    """Three convolutions of stride 2, each with a BatchNorm."""

    offers = {"features", "maps", "raw_maps", "pooled"}

    def __init__(self, options: Conv3Options):
        self.width = options.width

    def build(self, channels):
        return Stages(channels, self.width, 2 * self.width, 4 * self.width)


@hookimpl
def register_components():
    yield Backbone("conv3", Conv3, Conv3Options)
