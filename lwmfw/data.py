"""Images to batches: ordered by class, cropped, flipped and normalised as tensors.

A set in memory is one uint8 tensor on the device; one in files is decoded by workers (decoding.py). Order and
augmentation of an epoch are drawn at once from a generator that depends on seed, step, phase and epoch only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from lwmfw.decoding import CHUNK, decoded_batches
from lwmfw.errors import UserError
from lwmfw.rng import generator
from lwmfw.types import Batch, DataSet, ImageFiles, ImageSet

EVALUATION_BATCH = 250  # larger forwards are slower on a CPU


def arrange(data: DataSet, order: list[int], validation: float, seed: int) -> DataSet:
    """The data set with labels replaced by positions in the class order, sorted by them.

    Args:
        data: as loaded.
        order: labels in class order; images of other labels are left out.
        validation: if above 0, this share of each class's training images becomes the test set.
        seed: decides which images.

    Raises:
        UserError: a class of the order has no images.
    """
    train = _sorted(data.train, order)
    if validation:
        train, test = _split(train, validation, seed)
    else:
        test = _sorted(data.test, order)
    for part, images in (("training", train), ("test", test)):
        counts = torch.bincount(images.labels, minlength=len(order))
        if (counts == 0).any():
            name = data.class_names[order[int((counts == 0).nonzero()[0])]]
            raise UserError(f"data: class '{name}' has no {part} images; leave it out or add some")
    return replace(data, train=train, test=test)


def _sorted(images: ImageSet, order: list[int]) -> ImageSet:
    highest = max(*order, *images.labels.unique().tolist(), 0)
    position = torch.full((highest + 1,), -1)
    position[order] = torch.arange(len(order))
    labels = position[images.labels]
    chosen = labels.argsort(stable=True)[int((labels < 0).sum()) :]
    return replace(images.select(chosen), labels=labels[chosen])


def _split(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Per class, the first `1 - share` of a random order and the rest."""
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in images.labels.unique().tolist():
        members = (images.labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator(seed, "validation", label))]
        held_out[shuffled[: max(1, round(len(members) * share))]] = True
    return images.select((~held_out).nonzero().flatten()), images.select(held_out.nonzero().flatten())


@dataclass(frozen=True)
class Loader:
    """Turns stored images into normalised batches on a device, as one data set wants it."""

    mean: Tensor
    std: Tensor
    padding: int
    flip: bool

    @classmethod
    def of(cls, data: DataSet, device: torch.device) -> Loader:
        """The loader of a data set."""
        mean, std = (torch.tensor(values, device=device).mul(255).view(1, -1, 1, 1) for values in (data.mean, data.std))
        return cls(mean, std, data.padding, data.flip)

    def training_batches(
        self, images: ImageSet, batch_size: int, rng: torch.Generator, first_new: int = 0
    ) -> Iterator[Batch]:
        """One epoch: every image once, shuffled and augmented by numbers drawn before the first batch.

        Images of classes before `first_new` are exemplars.
        """
        if isinstance(images, ImageFiles):
            yield from self._training_batches_of_files(images, batch_size, rng)
            return
        device, count = images.labels.device, len(images)
        order = torch.randperm(count, generator=rng).to(device)
        shifts = torch.randint(0, 2 * self.padding + 1, (2, count), generator=rng).to(device)
        mirrored = (torch.rand(count, generator=rng) < 0.5 * self.flip).to(device)
        for first in range(0, count, batch_size):
            chosen = order[first : first + batch_size]
            pixels = images.pixels[chosen]
            if self.padding or self.flip:
                pixels = crop_and_flip(pixels, shifts[:, chosen], mirrored[chosen], self.padding)
            labels = images.labels[chosen]
            yield Batch(self.normalise(pixels), labels, labels < first_new)

    def _training_batches_of_files(self, files: ImageFiles, batch_size: int, rng: torch.Generator) -> Iterator[Batch]:
        chosen = torch.randperm(len(files), generator=rng).split(batch_size)
        seeds = torch.randint(2**63 - 1, (len(files),), generator=rng)
        batches = decoded_batches(files, chosen, seeds=seeds, flip=self.flip)
        for index, pixels in zip(chosen, batches, strict=True):
            labels = files.labels[index.to(files.labels.device)]
            yield Batch(self.normalise(pixels), labels, torch.zeros_like(labels, dtype=torch.bool))

    def evaluation_batches(self, images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in stored order, not augmented."""
        if isinstance(images, ImageFiles):
            count, shown = CHUNK, decoded_batches(images, torch.arange(len(images)).split(CHUNK))
        else:
            count, shown = EVALUATION_BATCH, iter(images.pixels.split(EVALUATION_BATCH))
        for pixels, labels in zip(shown, images.labels.split(count), strict=True):
            yield self.normalise(pixels), labels

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 pixels of mean 0 and deviation 1, in the memory format of the model."""
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        return images.sub_(self.mean).div_(self.std)


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
