"""A data set in class order."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from lwmfw.data.images import DataSet, ImageSet
from lwmfw.errors import UserError
from lwmfw.rng import generator


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
    # what a subclass of a plug-in's adds, and asks of its constructor, is not the run's
    return DataSet(**{each.name: getattr(data, each.name) for each in fields(DataSet)} | {"train": train, "test": test})


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
