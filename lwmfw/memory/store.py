"""The exemplar memory: images of earlier steps, stored as bytes, that are trained on again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lwmfw.data.decoding import encoded_files
from lwmfw.data.images import ImageFiles, Images, ImageSet, StoredImage
from lwmfw.errors import CheckpointRefused
from lwmfw.memory.selection import Selection
from lwmfw.recipe.budget import Budget

_SAMPLE = 512  # images whose encoded size stands for that of all
_SAMPLED_FILES = 64  # they have to be read first
_SIZE_BYTES = 4  # height and width of a photograph, 16 bits each


class CodecMethods(Protocol):
    """What a codec's object has; see `lwmfw.Codec`."""

    def encode(self, pixels: Tensor) -> list[bytes]: ...

    def decode(self, encoded: Sequence[bytes], shape: tuple[int, int, int]) -> Tensor: ...

    def shared_bytes(self, shape: tuple[int, int, int]) -> int: ...


class Memory:
    """The exemplars of the classes seen so far, as a codec encodes them, once.

    Images in memory are stored at their common size. Of photographs that stay in their files, the whole upright
    image is stored, its shorter side resized to what evaluation resizes it to; training cuts parts out of it as out of
    a file.

    Attributes:
        budget: how many there may be.
        codec: encodes and decodes them.
        exemplars: they themselves, by class, and in each class in the order in which they were selected.
        labels: (M,), int64, their classes.
    """

    def __init__(self, budget: Budget, codec: CodecMethods, like: ImageSet) -> None:
        self.budget = budget
        self.codec = codec
        self.exemplars: list[StoredImage] = []
        self.labels = like.labels[:0].clone()
        self._like = like.select(torch.arange(0))

    @property
    def bytes(self) -> int:
        """Bytes of the stored images together: encoded pixels, headers, tables, and the sizes of photographs."""
        return sum(self.sizes) + self._shared_bytes

    @property
    def sizes(self) -> list[int]:
        """Bytes of each exemplar, without what they share."""
        return [self._bytes_of(stored) for stored in self.exemplars]

    @property
    def spendable(self) -> Budget:
        """The budget without the bytes that exemplars share."""
        if self.budget.kind != "bytes":
            return self.budget
        return Budget("bytes", max(0, self.budget.amount - self._shared_bytes))

    @property
    def _shared_bytes(self) -> int:
        like = self._like
        return self.codec.shared_bytes((like.channels, like.size, like.size))

    def _bytes_of(self, stored: StoredImage) -> int:
        return len(stored.encoded) + (_SIZE_BYTES if isinstance(self._like, ImageFiles) else 0)

    def images(self) -> ImageSet:
        """The exemplars as they are trained on: decoded, or photographs that are decoded whenever they are shown."""
        return self._shown(list(self.exemplars), self.labels)

    def some(self, positions: Sequence[int]) -> ImageSet:
        """Those at positions, likewise."""
        return self._shown([self.exemplars[place] for place in positions], self.labels[list(positions)])

    def as_stored(self, images: ImageSet) -> ImageSet:
        """Images as they would come out of the memory, encoded and decoded."""
        return self._shown(list(self._encode(images)), images.labels)

    def _shown(self, stored: list[StoredImage], labels: Tensor) -> ImageSet:
        like = self._like
        if isinstance(like, ImageFiles):
            return replace(like, paths=stored, labels=labels, codec=self.codec)
        shape = (like.channels, like.size, like.size)
        pixels = self.codec.decode([image.encoded for image in stored], shape)
        return Images(pixels.to(labels.device), labels)

    def join(self, new: ImageSet) -> ImageSet:
        """The exemplars and the images of new classes, which come behind theirs in the class order."""
        held = self.images() if self.exemplars else self._like
        labels = torch.cat([held.labels, new.labels])
        if isinstance(held, ImageFiles):
            assert isinstance(new, ImageFiles), "a data set is of one sort"  # noqa: S101
            return replace(held, paths=[*held.paths, *new.paths], labels=labels)
        assert isinstance(new, Images), "a data set is of one sort"  # noqa: S101
        return Images(torch.cat([held.pixels, new.pixels]), labels)

    def cost(self, candidates: ImageSet) -> float:
        """Mean bytes of an exemplar, measured on what is held and on a sample of the other candidates."""
        held, count = len(self.exemplars), len(candidates)
        wanted = _SAMPLED_FILES if isinstance(candidates, ImageFiles) else _SAMPLE
        sample = torch.linspace(held, count - 1, min(wanted, count - held), dtype=torch.float64).long()
        sizes = [self._bytes_of(s) for s in (*self.exemplars, *self._encode(candidates.select(sample)))]
        return sum(sizes) / len(sizes)

    def store(self, candidates: ImageSet, selection: Selection) -> None:
        """Keep what was selected and nothing else; of a budget in bytes, what fits, the most important first.

        What is held already and was not changed keeps its bytes.
        """
        images, order = selection.images(candidates), selection.order
        anew = order.cpu() >= len(self.exemplars)
        if isinstance(images, Images) and isinstance(candidates, Images) and selection.pixels:
            changed = images.pixels != candidates.pixels[order.to(candidates.labels.device)]
            anew |= changed.flatten(1).any(1).cpu()
        encoded = iter(self._encode(images.select(anew.nonzero().flatten().to(images.labels.device))))
        stored = [
            next(encoded) if new else self.exemplars[i] for i, new in zip(order.tolist(), anew.tolist(), strict=True)
        ]
        kept = self._fitting(stored, selection.ranks)
        self.exemplars = [stored[i] for i in kept]
        self.labels = images.labels[kept]

    def _fitting(self, stored: list[StoredImage], ranks: Tensor) -> list[int]:
        """The positions of images that fit into the budget when every class gives up its least important ones first."""
        if self.budget.kind != "bytes":
            return list(range(len(stored)))
        order = ranks.argsort(stable=True)
        sizes = torch.tensor([self._bytes_of(s) for s in stored])[order]
        fits = sizes.cumsum(0) <= self.spendable.amount
        return sorted(order[fits].tolist())

    def _encode(self, images: ImageSet) -> Iterator[StoredImage]:
        if isinstance(images, ImageFiles):
            yield from encoded_files(images, self.codec)
            return
        encoded = self.codec.encode(images.pixels.cpu())
        yield from (StoredImage(each, images.size, images.size) for each in encoded)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: all bytes in one tensor, and where each image's begin."""
        blob = b"".join(stored.encoded for stored in self.exemplars)
        return {
            "encoded": torch.from_numpy(np.frombuffer(blob, np.uint8).copy()),
            "lengths": torch.tensor([len(s.encoded) for s in self.exemplars], dtype=torch.int64),
            "sizes": torch.tensor([(s.height, s.width) for s in self.exemplars], dtype=torch.int64).view(-1, 2),
            "labels": self.labels,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            CheckpointRefused: it is none, or of images that this memory does not store.
        """
        if fault := _fault(state, self._like):
            raise CheckpointRefused(f"memory: {fault} in the checkpoint; start the run anew")
        blob, first, self.exemplars = state["encoded"].numpy().tobytes(), 0, []
        for length, (height, width) in zip(state["lengths"].tolist(), state["sizes"].tolist(), strict=True):
            self.exemplars.append(StoredImage(blob[first : first + length], height, width))
            first += length
        self.labels = state["labels"].to(self.labels.device)


_KEPT = {
    "encoded": (torch.uint8, 1),
    "lengths": (torch.int64, 1),
    "sizes": (torch.int64, 2),
    "labels": (torch.int64, 1),
}
"""What a state is of, and with how many dimensions."""


def _fault(state: Mapping[str, Any], like: ImageSet) -> str:
    """What is wrong with a state, before an image of it is made; empty: nothing."""
    for name, (dtype, dimensions) in _KEPT.items():
        value = state.get(name)
        if not isinstance(value, Tensor) or value.dtype != dtype or value.ndim != dimensions:
            return f"{name} of exemplars are missing or of another type"
    lengths, sizes, labels = state["lengths"], state["sizes"], state["labels"].cpu()
    if not (sizes.shape == (len(lengths), 2) and len(labels) == len(lengths)):
        return f"there are {len(lengths)} exemplars, {len(sizes)} sizes and {len(labels)} labels"
    if (lengths < 0).any() or sum(lengths.tolist()) != len(state["encoded"]):
        return f"{len(state['encoded'])} bytes of exemplars are not those of their lengths"
    if (labels < 0).any() or (labels.diff() < 0).any():
        return "exemplars are not in the order of their classes"
    if isinstance(like, ImageFiles):
        fits = (sizes > 0).all() and (sizes < 2 ** (4 * _SIZE_BYTES)).all() and (sizes.amin(1) <= like.resize).all()
    else:
        fits = (sizes == like.size).all()
    return "" if fits else f"exemplars have sizes that are not stored, such as {sizes.amax(0).tolist()}"
