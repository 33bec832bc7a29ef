"""Images to batches: ordered, cropped, flipped and normalised as tensors.

A set in memory is one uint8 tensor on the device; one in files is decoded by workers (decoding.py). Order and
augmentation of an epoch are drawn at once from a generator that depends on seed, step, phase and epoch only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from lwmfw.data.decoding import decoded_batches
from lwmfw.data.images import Batch, DataSet, ImageFiles, Images, ImageSet
from lwmfw.data.pixels import CHUNK, MAX_PIXELS, Reading

EVALUATION_BATCH = 250  # larger forwards are slower on a CPU


@dataclass(frozen=True)
class EpochShape:
    """What the batches of an epoch are made of.

    A last image that would be a batch of its own joins the one before: BatchNorm learns nothing of one value.

    Attributes:
        count: images, exemplars first.
        held: how many are exemplars.
        batch_size: of every batch but the last.
        replay: above 0, the share of exemplars in every batch: new images come once, exemplars as often as that takes;
            0: every image comes once.
    """

    count: int
    held: int
    batch_size: int
    replay: float = 0.0

    @property
    def _replayed(self) -> int:
        """Exemplars in a batch; 0: as chance has it."""
        mixed = self.replay and 0 < self.held < self.count and self.batch_size > 1
        return min(max(round(self.batch_size * self.replay), 1), self.batch_size - 1) if mixed else 0

    @property
    def batches(self) -> int:
        """How many there are."""
        new = self.count - self.held if self._replayed else self.count
        return math.ceil(new / (self.batch_size - self._replayed)) - self._left_over

    @property
    def _left_over(self) -> bool:
        """Whether a last batch would be of one image beside larger ones."""
        return not self._replayed and 1 < self.batch_size < self.count and self.count % self.batch_size == 1

    @property
    def shown(self) -> int:
        """Images in all of them."""
        return self.count - self.held + self.batches * self._replayed if self._replayed else self.count

    def shuffled(self, rng: torch.Generator) -> list[Tensor]:
        """The positions of each batch's images, in random order."""
        replayed = self._replayed
        if not replayed:
            whole = list(torch.randperm(self.count, generator=rng).split(self.batch_size))
            return [*whole[:-2], torch.cat(whole[-2:])] if self._left_over else whole
        new = (self.held + torch.randperm(self.count - self.held, generator=rng)).split(self.batch_size - replayed)
        rounds = math.ceil(len(new) * replayed / self.held)
        old = torch.cat([torch.randperm(self.held, generator=rng) for _ in range(rounds)]).split(replayed)
        return [torch.cat(pair) for pair in zip(new, old, strict=False)]


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through before a model sees it, apart from augmentation.

    Attributes:
        channels: 1 or 3 mostly.
        size: height and width in pixels.
        resize: what the shorter side becomes before the centre is cut out; 0: images are of the size already.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, likewise.
        background: the colour that shows where a file is transparent.
        values: of files of more than 8 bits a channel, which become black and white; []: as each file has them.
        max_pixels: of a file, as it is decoded.
    """

    channels: int
    size: int
    resize: int
    mean: list[float]
    std: list[float]
    background: str = "white"
    values: list[float] = field(default_factory=list)
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, data: DataSet) -> Preprocessing:
        """That of a data set."""
        images = data.train
        resize, read = images.resize if isinstance(images, ImageFiles) else 0, images.reading
        shape = images.channels, images.size, resize, list(data.mean), list(data.std)
        return cls(*shape, read.background, list(read.values), read.max_pixels)

    @property
    def reading(self) -> Reading:
        """How a file is read."""
        return Reading(self.background, tuple(self.values), self.max_pixels)


@dataclass(frozen=True)
class Loader:
    """Turns stored images into normalised batches on a device, as one data set wants it."""

    mean: Tensor
    std: Tensor
    padding: int
    flip: bool
    brightness: float = 0.0

    @classmethod
    def of(cls, data: DataSet, device: torch.device) -> Loader:
        """The loader of a data set."""
        mean, std = (torch.tensor(values, device=device).mul(255).view(1, -1, 1, 1) for values in (data.mean, data.std))
        return cls(mean, std, data.padding, data.flip, data.brightness)

    def training_batches(
        self, images: ImageSet, shape: EpochShape, rng: torch.Generator, done: int = 0
    ) -> Iterator[Batch]:
        """One epoch, in an order and augmented by numbers that are drawn before the first batch.

        Args:
            images: exemplars first.
            shape: of the epoch.
            rng: what is drawn from.
            done: how many batches at its beginning are left out.
        """
        order = shape.shuffled(rng)
        drawn = sum(map(len, order))
        # an image that comes once has its own numbers, whatever batch it is in
        once = drawn == len(images)
        numbers = order if once else list(torch.arange(drawn).split([len(index) for index in order]))
        if isinstance(images, ImageFiles):
            seeds = torch.randint(2**63 - 1, (drawn,), generator=rng)
            rest = [seeds[number] for number in numbers[done:]]
            shown = decoded_batches(images, order[done:], seeds=rest, flip=self.flip)
        else:
            shown = self._augmented(images, order[done:], numbers[done:], drawn, rng)
        if self.brightness:
            shown = self._brightened(shown, numbers[done:], drawn, rng, images.labels.device)
        for index, pixels in zip(_sent(order[done:], images.labels.device), shown, strict=True):
            yield Batch(self.normalise(pixels), images.labels[index], index < shape.held)

    def _augmented(
        self, images: Images, order: Sequence[Tensor], numbers: Sequence[Tensor], drawn: int, rng: torch.Generator
    ) -> Iterator[Tensor]:
        device = images.labels.device
        shifts, mirrored = (drawn.to(device) for drawn in self.draw(drawn, rng))
        for index, number in zip(_sent(order, device), _sent(numbers, device), strict=True):
            yield self.augment(images.pixels[index], shifts[:, number], mirrored[number])

    def _brightened(
        self, shown: Iterator[Tensor], numbers: Sequence[Tensor], drawn: int, rng: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        factors = (1 + self.brightness * (2 * torch.rand(drawn, generator=rng) - 1)).to(device)
        for pixels, number in zip(shown, _sent(numbers, device), strict=True):
            factor = factors[number]
            yield (pixels * factor.view(-1, 1, 1, 1)).clamp_(max=255)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """How so many images in memory are augmented: offsets (2, count) of the cut, and (count,), whether mirrored."""
        shifts = torch.randint(0, 2 * self.padding + 1, (2, count), generator=rng)
        return shifts, torch.rand(count, generator=rng) < 0.5 * self.flip

    def augment(self, pixels: Tensor, shifts: Tensor, mirrored: Tensor) -> Tensor:
        """Images (B, C, H, W) of any dtype, cropped and mirrored as drawn; differentiable."""
        if not self.padding and not self.flip:
            return pixels
        return crop_and_flip(pixels, shifts.to(pixels.device), mirrored.to(pixels.device), self.padding)

    def evaluation_size(self, images: ImageSet) -> int:
        """How many images a batch of evaluation has, but for the last one."""
        return CHUNK if isinstance(images, ImageFiles) else EVALUATION_BATCH

    def evaluation_batches(self, images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in stored order, not augmented."""
        count = self.evaluation_size(images)
        if isinstance(images, ImageFiles):
            shown = decoded_batches(images, torch.arange(len(images)).split(count))
        else:
            shown = iter(images.pixels.split(count))
        for pixels, labels in zip(shown, images.labels.split(count), strict=True):
            yield self.normalise(pixels), labels

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 pixels of mean 0 and deviation 1, in the memory format of the model; differentiable."""
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        return images.sub(self.mean).div_(self.std)


def _sent(parts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """The positions of an epoch's batches on a device, in one copy: one a batch would have the host wait for it."""
    sent: tuple[Tensor, ...] = torch.cat([*parts, torch.arange(0)]).to(device).split([len(part) for part in parts])
    return sent


def crop_and_flip(pixels: Tensor, shifts: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Pad with zeros, cut the original size out at an offset, mirror some; one gather for the whole batch.

    Args:
        pixels: (B, C, H, W).
        shifts: (2, B), offset of the cut in rows and columns, 0..2*padding.
        mirrored: (B,), bool.
        padding: zeros added at each side.

    Returns:
        (B, C, H, W), of the same dtype.
    """
    count, channels, height, width = pixels.shape
    padded = pad(pixels, (padding, padding, padding, padding)).flatten(2)
    rows = shifts[0, :, None] + torch.arange(height, device=pixels.device)
    columns = shifts[1, :, None] + torch.arange(width, device=pixels.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    index = index.view(count, 1, -1).expand(-1, channels, -1)
    return padded.gather(2, index).view(count, channels, height, width)
