"""jpeg: exemplars as JPEG, so that more of them fit into the same bytes (MRDC, Wang et al., ICLR 2022).

Of a JPEG of 32x32 pixels most is header: 623 bytes beside about 370 of the image itself at quality 75. All images of
one quality have the same one but for their height and width, and the memory can keep it once.

Measured on 3000 images of CIFAR-100, mean PSNR at equal bytes: above 300 bytes an image, 4:4:4 is ahead of 4:2:2 and
4:2:0 (369 bytes: 32.1, 32.0 and 31.6 dB); below 250 they are within 0.3 dB of each other.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lwmfw import Codec, Component, Field, Options, UserError, hookimpl
from lwmfw_plugins.selectors._ranking import class_features, class_positions
from lwmfw_plugins.selectors.herding import herd

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Step, StepResult

Subsampling = Literal["444", "422", "420"]
Quality = Annotated[int, Field(ge=1, le=100)]

_COLOURS = {1: "GRAY", 3: "RGB"}
_SOF, _SOS = 0xC0, 0xDA  # the segments that hold height and width, and that end the header


def compress(pixels: Tensor, quality: int, subsampling: Subsampling) -> list[bytes]:
    """The JPEGs of images (N, C, H, W), uint8, grey or RGB.

    Raises:
        UserError: they are of other colours.
    """
    import simplejpeg

    channels = pixels.shape[1]
    if channels not in _COLOURS:
        raise UserError(f"JPEG has 1 or 3 channels, images have {channels}; choose another codec")
    colours = (_COLOURS[channels], "Gray" if channels == 1 else subsampling)
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return [simplejpeg.encode_jpeg(image, quality, *colours, fastdct=False) for image in images]


def decompress(streams: Sequence[bytes], header: bytes, shape: tuple[int, int, int]) -> Tensor:
    """The images (N, C, H, W), uint8, of JPEGs that have all the same header.

    Another header does not reach the decoder, whatever it claims: a size, progressive scans, 12 bits, four colours.

    Raises:
        ValueError: a header is another, or an image is damaged or cut short.
    """
    import numpy as np
    import simplejpeg
    import torch

    channels, height, width = shape
    images = np.empty((len(streams), height, width, channels), np.uint8)
    for number, (stream, image) in enumerate(zip(streams, images, strict=True)):
        if not stream.startswith(header):
            raise ValueError(f"jpeg: exemplar {number} {_difference(stream, shape)}")
        try:
            simplejpeg.decode_jpeg(stream, _COLOURS[channels], fastdct=False, fastupsample=False, buffer=image)
        except ValueError as error:
            raise ValueError(f"jpeg: exemplar {number} is damaged: {error}") from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _difference(stream: bytes, shape: tuple[int, int, int]) -> str:
    """What is wrong with a header, in words; reading it allocates nothing."""
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(stream)
    except ValueError:
        return "is no JPEG"
    if (height, width) != shape[1:]:
        return f"claims to be {height}x{width} pixels and should be {shape[1]}x{shape[2]}"
    return "has tables that are not those of its quality and colours"


def header_of(shape: tuple[int, ...], quality: int, subsampling: Subsampling) -> bytes:
    """What precedes the image itself in every JPEG of a shape (C, H, W), quality and subsampling."""
    channels, height, width = shape
    header, size = _blank_header(channels, quality, subsampling)
    return header[:size] + height.to_bytes(2) + width.to_bytes(2) + header[size + 4 :]


@functools.cache
def _blank_header(channels: int, quality: int, subsampling: Subsampling) -> tuple[bytes, int]:
    """The header of a black image, and where it states height and width, 16 bits each."""
    import torch

    (stream,) = compress(torch.zeros(1, channels, 8, 8, dtype=torch.uint8), quality, subsampling)
    start, segments = 2, {}
    while _SOS not in segments:
        segments[stream[start + 1]] = start
        start += 2 + int.from_bytes(stream[start + 2 : start + 4])
    return stream[:start], segments[_SOF] + 5


class JpegOptions(Options):
    """Options of jpeg."""

    quality: Quality = Field(75, description="libjpeg's quality; 100 keeps almost everything")
    subsampling: Subsampling = Field("444", description="resolution of colour: full, half across, half both ways")
    tables: Literal["own", "shared"] = Field(
        "own",
        description="own: every exemplar is a complete JPEG; shared: their common header is kept and counted once",
    )
    choose: list[Quality] = Field(
        [],
        description="qualities from which step 1 takes the lowest that preserves the volume of the "
        "features; empty: `quality`",
    )
    tolerance: float = Field(
        0.005,
        ge=0,
        le=1,
        description="share of itself by which the classes' mean log-volume may change; our own value",
    )


class Jpeg:
    """JPEG of a given quality, or of the lowest that preserves what the model sees.

    With `choose`, step 1 tries the qualities from the smallest on: as many images as the budget then allows are herded
    and compressed, and the first quality that changes the log-volume of their features by at most `tolerance` is used
    from then on, else the highest (MRDC). What is planned before step 1 supposes the largest.

    The paper wants the ratio of volumes near 1; the tolerance is ours. Measured once, on 10 classes of CIFAR-100 with
    20 exemplars each and a ResNet-20 of width 8 after 4 epochs, the change is 1.6 % at quality 10, 0.5 % at 20, 0.6 %
    at 30, 0.2 % at 50 and 0.1 % at 75.

    Attributes:
        quality: in use.
    """

    def __init__(self, options: JpegOptions) -> None:
        self.options = options
        self.quality = max(options.choose, default=options.quality)

    def encode(self, pixels: Tensor) -> list[bytes]:
        """The JPEGs of images (N, C, H, W), uint8, or what follows their header."""
        _, *shape = pixels.shape
        header = self._header(tuple(shape))
        streams = compress(pixels, self.quality, self.options.subsampling)
        if not all(stream.startswith(header) for stream in streams):
            raise RuntimeError("simplejpeg made headers that differ among images of one shape and quality")
        left_out = self._left_out(header)
        return [stream[left_out:] for stream in streams]

    def decode(self, encoded: Sequence[bytes], shape: tuple[int, int, int]) -> Tensor:
        """The inverse: (N, C, H, W).

        Raises:
            ValueError: as `decompress`.
        """
        header = self._header(shape)
        missing = header[: self._left_out(header)]
        return decompress([missing + stored for stored in encoded], header, shape)

    def shared_bytes(self, shape: tuple[int, int, int]) -> int:
        """The header, where it is kept once; photographs of all sizes have it in common."""
        return self._left_out(self._header(shape))

    def _header(self, shape: tuple[int, ...]) -> bytes:
        return header_of(shape, self.quality, self.options.subsampling)

    def _left_out(self, header: bytes) -> int:
        """How many bytes at the head of a JPEG are not stored."""
        return len(header) if self.options.tables == "shared" else 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"quality": self.quality}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.quality = state["quality"]

    @hookimpl
    def before_memory(self, run: Run, step: Step, candidates: ImageSet) -> None:
        """Choose the quality, once, before anything is stored."""
        import torch

        from lwmfw_plugins.codecs._volume import volume_change

        classes, memory = step.new_classes, run.memory
        if memory is None or step.index > 1 or not self.options.choose:
            return
        features, positions = class_features(run, candidates, classes), class_positions(candidates, classes)
        for quality in sorted(self.options.choose):
            self.quality = quality
            quota = run.quota(step, memory.cost(candidates))
            herded = {label: herd(f, min(quota[label], len(f))) for label, f in features.items()}
            kept = candidates.select(torch.cat([positions[label][order] for label, order in herded.items()]))
            compressed = class_features(run, memory.as_stored(kept), classes)
            originals = [features[label][order] for label, order in herded.items()]
            if volume_change(originals, list(compressed.values())) <= self.options.tolerance:
                return

    @hookimpl
    def after_step(self, result: StepResult, name: str) -> None:
        """Say in the results which quality was chosen."""
        if self.options.choose:
            result.extra[name] = {"quality": self.quality}


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Codec("jpeg", Jpeg, JpegOptions)
