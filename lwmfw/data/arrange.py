"""A data set in class order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from lwmfw.data.images import DataSet, ImageFiles, Images, ImageSet
from lwmfw.errors import UserError, shown
from lwmfw.rng import generator


def arrange(data: DataSet, order: Sequence[int | None], validation: float, seed: int, known: int = 0) -> DataSet:
    """The data set with labels replaced by positions in the class order, sorted by them.

    Args:
        data: as loaded.
        order: labels in class order, None for a class that is not in the data; images of other labels are left out.
        validation: if above 0, this share of each class's training images becomes the test set.
        seed: decides which images.
        known: how many classes at the beginning of the order need no images; with any, nor do the others for testing.

    Raises:
        UserError: another class of the order has no images.
    """
    train = _sorted(data.train, order)
    if validation:
        train, test = _split(train, validation, seed)
    else:
        test = _sorted(data.test, order)
    for part, images in (("training", train), ("test", test)):
        counts = torch.bincount(images.labels, minlength=len(order))
        lacking = [label for label, count in zip(order[known:], counts[known:].tolist(), strict=True) if not count]
        if lacking and not (known and part == "test"):
            name, alone = shown(data.class_names[lacking[0] or 0]), (train.labels == order.index(lacking[0])).sum() == 1
            why = ", for it has one image, and two are needed" if alone else ""
            raise UserError(f"data: class '{name}' has no {part} images{why}; leave it out or add some")
    # what a subclass of a plug-in's adds, and asks of its constructor, is not the run's
    return DataSet(**{each.name: getattr(data, each.name) for each in fields(DataSet)} | {"train": train, "test": test})


def together(parts: Sequence[ImageSet]) -> ImageSet:
    """Sets of one kind as one, sorted by class.

    Raises:
        UserError: they are files whose values become black and white in more than one way.
    """
    first, labels = parts[0], torch.cat([part.labels for part in parts])
    if isinstance(first, Images):
        joined: ImageSet = replace(
            first, pixels=torch.cat([p.pixels for p in parts if isinstance(p, Images)]), labels=labels
        )
    else:
        paths = [path for part in parts if isinstance(part, ImageFiles) for path in part.paths]
        ranges = {tuple(part.reading.values): None for part in parts if part.reading.values}
        if len(ranges) > 1:
            listed = " and ".join(map(str, map(list, ranges)))
            raise UserError(f"data: files have values of {listed}, and cannot be one set; look through them apart")
        joined = replace(first, paths=paths, labels=labels, values=next(iter(ranges), ()))
    return joined.select(labels.argsort(stable=True))


def _sorted(images: ImageSet, order: Sequence[int | None]) -> ImageSet:
    places = {label: place for place, label in enumerate(order) if label is not None}
    position = torch.full((max(*places, *images.labels.unique().tolist(), 0) + 1,), -1)
    position[list(places)] = torch.tensor(list(places.values()))
    labels = position[images.labels]
    chosen = labels.argsort(stable=True)[int((labels < 0).sum()) :]
    return replace(images.select(chosen), labels=labels[chosen])


def _split(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Per class, the first `1 - share` of a random order, at least one image, and the rest."""
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in images.labels.unique().tolist():
        members = (images.labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator(seed, "validation", label))]
        held_out[shuffled[: min(len(members) - 1, max(1, round(len(members) * share)))]] = True
    return images.select((~held_out).nonzero().flatten()), images.select(held_out.nonzero().flatten())
