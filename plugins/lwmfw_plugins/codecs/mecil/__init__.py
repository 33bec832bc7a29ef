"""mecil: exemplars of low fidelity, and a network that predicts alike on them and on their originals (MECIL).

Zhao et al., "Memory-Efficient Class-Incremental Learning for Image Classification", TNNLS 2021. An encoder makes a few
bytes of an image (_transform.py); a decoder, which every step trains on, makes a pseudo-image of them (_decoder.py).
It learns after the network has been trained, so that one decoder makes all pseudo-images of a step.
Pseudo-images are of a domain of their own, so the network is shown those of the new images too, and is to say the same
of original x and pseudo-image x':

    mecil = weight * mean over new images of KL(softmax f(x) || softmax f(x'))

with f(x) held fixed, so that only f(x') is drawn; what draws f(x) is its label. No code was published, and the paper's
are the low fidelity, the pairs and the decoder that is updated; every form and number here is a choice of ours. Its
"classifier adaptation" is no part of it: the phase `balanced` stands beside it. README.md has the choices and figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lwmfw import Codec, Component, Field, Options, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from lwmfw import Batch, ImageSet, Loader, Model, Outputs, Run, Step, StepResult
    from lwmfw_plugins.codecs.mecil._decoder import Layer, Layers
    from lwmfw_plugins.codecs.mecil._transform import Transform

_LEARNED_FROM = 2**22  # pixels: 4096 images of 32x32, 83 of 224x224
_AT_ONCE = 2**18  # pixels of what is encoded or decoded at a time


def agreement(original: Tensor, pseudo: Tensor, counts: Tensor) -> Tensor:
    """KL divergence of softmaxes, from what is said of originals to what is said of their pseudo-images.

    Args:
        original: (B, N), logits; no gradient reaches them.
        pseudo: (B, N), logits.
        counts: (B,), bool, of which images the mean is taken.

    Returns:
        A scalar; 0 where no image counts.
    """
    from torch.nn.functional import kl_div

    theirs, ours = original.detach().log_softmax(1), pseudo.log_softmax(1)
    each = kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return (each * counts).sum() / counts.sum().clamp(min=1)


def pixels_of(images: Tensor, loader: Loader) -> Tensor:
    """Images as a model sees them (B, C, H, W) -> their pixels, whole numbers from 0 to 255 in float32."""
    return (images * loader.std + loader.mean).round().clamp(0, 255)


def pseudo_images(images: Tensor, loader: Loader, transform: Transform, layers: Layers) -> Tensor:
    """Pseudo-images of images, both as a model sees them (B, C, H, W), in the precision of transform and layers."""
    return loader.normalise(_pseudo(transform.lossy(pixels_of(images, loader)), layers))


def signal_to_noise(images: Tensor, originals: Tensor) -> float:
    """Peak signal-to-noise ratio in decibel, of the mean squared error over all images, which are of 0..255."""
    error = float((images.double() - originals).square().mean())
    return 10 * math.log10(255**2 / max(error, 1e-2))


class MecilOptions(Options):
    """Options of mecil; all of them are ours."""

    form: Literal["pca", "downsample"] = Field(
        "pca", description="pca: principal components of blocks of pixels; downsample: the image at a lower resolution"
    )
    block: int = Field(8, ge=2, le=32, description="pca: side of a block in pixels; the last ones of a row are padded")
    bytes: int = Field(
        16,
        ge=1,
        le=1024,
        description="pca: bytes per block, all channels included, shared out among its components in bits",
    )
    scale: int = Field(2, ge=2, le=16, description="downsample: side of the square of pixels that becomes one")
    decoder_epochs: int = Field(
        5,
        ge=0,
        le=10_000,
        description="epochs of the decoder in each step, on up to 2**22 pixels of new images; 0: none",
    )
    decoder_width: int = Field(16, ge=1, le=256, description="channels of the decoder's two hidden layers")
    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the term mecil; 0: no pairs")


class Mecil:
    """Low-fidelity exemplars, restored by a decoder trained in every step and used for training in pairs (MECIL).

    Attributes:
        transform: fitted; None: to no image yet.
        decoder: its layers as they are stored, float16; empty: none was trained.
    """

    spares_first_step = True

    def __init__(self, options: MecilOptions) -> None:
        from lwmfw_plugins.codecs.mecil._transform import Downsampled

        self.options = options
        self.transform: Transform | None = Downsampled(options.scale) if options.form == "downsample" else None
        self.decoder: list[Layer] = []
        self._learned: dict[str, float] = {}
        self._near: tuple[Loader, Transform, list[Layer]] | None = None

    def encode(self, pixels: Tensor) -> list[bytes]:
        """The bytes of images (N, C, H, W), uint8."""
        import torch

        _, channels, height, width = pixels.shape
        transform = self._transform(channels).to(pixels.device, torch.float64)
        parts = pixels.split(_part(height, width)) if len(pixels) else ()
        return [row.tobytes() for part in parts for row in transform.encode(part.double()).numpy()]

    def decode(self, encoded: Sequence[bytes], shape: tuple[int, int, int]) -> Tensor:
        """The pseudo-images (N, C, H, W) that the newest decoder makes.

        In float64, where how many images come at once, or on how many threads, moves no pixel to another grey level.

        Raises:
            ValueError: an image has another number of bytes than those of its shape.
        """
        import numpy as np
        import torch

        channels, height, width = shape
        device, exact = torch.device("cpu"), torch.float64
        transform, layers = self._transform(channels).to(device, exact), _as_float(self.decoder, device, exact)
        size = transform.bytes_of(shape)
        for number, stored in enumerate(encoded):
            if len(stored) != size:
                raise ValueError(f"mecil: exemplar {number} has {len(stored)} bytes and should have {size}")
        together = torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).reshape(-1, size).copy())
        pixels = torch.empty(len(encoded), *shape, dtype=torch.uint8)
        for place in torch.arange(len(encoded)).split(_part(height, width)) if encoded else ():
            pixels[place] = _pseudo(transform.decode(together[place], shape), layers).to(torch.uint8)
        return pixels

    def shared_bytes(self, shape: tuple[int, int, int]) -> int:
        """What it takes to read them: the directions, ranges and bits of principal components, and the decoder."""
        from lwmfw_plugins.codecs.mecil._decoder import untrained

        layers = self.decoder
        if not layers and self.options.decoder_epochs:
            layers = _stored(untrained(shape[0], self.options.decoder_width))
        read_by = [*self._transform(shape[0]).tensors.values(), *(value for layer in layers for value in layer)]
        return sum(value.nbytes for value in read_by)

    def _transform(self, channels: int) -> Transform:
        from lwmfw_plugins.codecs.mecil._transform import Blocks, before_any_image

        if self.transform is not None:
            return self.transform
        block = self.options.block
        return Blocks.keeping(self.options.bytes, block, *before_any_image(channels, block))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: what `shared_bytes` counts, and what is still to be said in the results."""
        layers = {
            f"decoder.{n}.{k}": v for n, layer in enumerate(self.decoder) for k, v in zip("wb", layer, strict=True)
        }
        return layers | (dict(self.transform.tensors) if self.transform else {}) | {"learned": self._learned}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        from lwmfw_plugins.codecs.mecil._transform import Blocks

        count = sum(name.endswith(".w") for name in state)
        self.decoder = [(state[f"decoder.{n}.w"], state[f"decoder.{n}.b"]) for n in range(count)]
        self._learned = state["learned"]
        if "directions" in state:
            self.transform = Blocks(self.options.block, state["directions"], state["ranges"], state["bits"])

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes need: not what lies on the run's device."""
        return vars(self) | {"_near": None}

    def learn(self, pixels: Tensor, rng: Generator) -> None:
        """Fit the components, if they are not, and train the decoder.

        Args:
            pixels: images (N, C, H, W), float32, whole numbers from 0 to 255, on the device that is to compute.
            rng: draws the decoder's first weights and the order of images, on the CPU.
        """
        if self.transform is None:
            self.transform = self._fitted(pixels)
        restored = self.transform.to(pixels.device, pixels.dtype).lossy(pixels)
        if self.options.decoder_epochs:
            self.decoder = self._trained(restored.clamp(0, 255), pixels, rng)
        self._learned = {
            "psnr_restored": _nearness(restored, [], pixels),
            "psnr_decoded": _nearness(restored, self.decoder, pixels),
        }

    def _fitted(self, pixels: Tensor) -> Transform:
        from lwmfw_plugins.codecs.mecil._transform import Blocks, blocks_of, principal_components

        blocks = blocks_of(pixels, self.options.block).flatten(0, 1)
        return Blocks.keeping(self.options.bytes, self.options.block, *principal_components(blocks.double().cpu()))

    def _trained(self, restored: Tensor, originals: Tensor, rng: Generator) -> list[Layer]:
        """The decoder as it is stored, trained from where the last step left it; as it was, where that is no better."""
        from lwmfw_plugins.codecs.mecil._decoder import drawn, trained, untrained

        layers = self.decoder or drawn(untrained(originals.shape[1], self.options.decoder_width), rng)
        before = _as_float(layers, originals.device, originals.dtype)
        after = trained(before, restored, originals, self.options.decoder_epochs, rng)
        both = _stored(before), _stored(after)
        return max(both, key=lambda layers: _nearness(restored, layers, originals))  # the first, if equal

    @hookimpl
    def before_step(self, run: Run) -> None:
        """Have what makes exemplars of this step at hand for its pairs; in the first step there is none of either."""
        import torch

        if self.transform is not None:
            device, dtype = run.device, torch.float32
            self._near = run.loader, self.transform.to(device, dtype), _as_float(self.decoder, device, dtype)

    @hookimpl
    def compute_penalty(self, batch: Batch, new: Outputs, model: Model) -> dict[str, Tensor] | None:
        """The term mecil. Exemplars are pseudo-images already and are shown again as they are."""
        import torch

        if not self.options.weight or self._near is None:
            return None
        with torch.no_grad():
            pseudo = pseudo_images(batch.images, *self._near)
            shown = torch.where(batch.from_memory[:, None, None, None], batch.images, pseudo)
        loss = agreement(new.logits, model(shown).logits, ~batch.from_memory)
        return {"mecil": self.options.weight * loss}

    @hookimpl
    def after_training(self, run: Run, step: Step, data: ImageSet, rng: Generator) -> None:
        """Learn from the new images: what is stored from now on, and all that is shown after it, is of one decoder."""
        self.learn(_some_pixels(run, data.of_classes(step.new_classes), rng), rng)

    @hookimpl
    def after_step(self, result: StepResult, name: str) -> None:
        """Say in the results how near the images of the step were restored, without and with the decoder."""
        result.extra[name] = self._learned


def _pseudo(restored: Tensor, layers: Layers) -> Tensor:
    """Pseudo-images of restored ones: whole numbers from 0 to 255."""
    from lwmfw_plugins.codecs.mecil._decoder import refined

    return refined(restored.clamp(0, 255), layers).round().clamp(0, 255)


def _nearness(restored: Tensor, layers: Layers, originals: Tensor) -> float:
    return signal_to_noise(_pseudo(restored, _as_float(layers, originals.device, originals.dtype)), originals)


def _part(height: int, width: int) -> int:
    return max(1, _AT_ONCE // (height * width))


def _as_float(layers: Layers, device: torch.device, dtype: torch.dtype) -> list[Layer]:
    return [(weight.to(device, dtype), bias.to(device, dtype)) for weight, bias in layers]


def _stored(layers: Layers) -> list[Layer]:
    return [(weight.half().cpu(), bias.half().cpu()) for weight, bias in layers]


def _some_pixels(run: Run, images: ImageSet, rng: Generator) -> Tensor:
    """The pixels of images drawn at random, as evaluation shows them: (N, C, H, W), float32, on the run's device."""
    import torch

    count = max(1, _LEARNED_FROM // images.size**2)
    chosen = torch.randperm(len(images), generator=rng)[:count].sort().values
    some = images.select(chosen.to(images.labels.device))
    return torch.cat([pixels_of(shown, run.loader) for shown, _ in run.loader.evaluation_batches(some)])


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Codec("mecil", Mecil, MecilOptions)
