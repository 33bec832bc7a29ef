"""The exemplar memory: images of earlier steps that are trained on again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lwmfw.budget import Budget
from lwmfw.errors import RunFailed
from lwmfw.types import Images, ImageSet, Selection


class Memory:
    """The exemplars of the classes seen so far, as raw pixels.

    Attributes:
        budget: how many there may be.
        image_bytes: what one of them takes.
        images: they themselves, by class, and in each class in the order in which they were selected.
    """

    def __init__(self, budget: Budget, like: Images) -> None:
        self.budget = budget
        self.image_bytes = like.pixels[0].numel()
        self.images = Images(like.pixels[:0].clone(), like.labels[:0].clone())

    @property
    def bytes(self) -> int:
        """Bytes of the stored pixels."""
        return self.images.pixels.numel()

    def join(self, new: ImageSet) -> Images:
        """The exemplars and the images of new classes, which come behind theirs in the class order."""
        held = self.images
        assert isinstance(new, Images), "checked before the memory is made"  # noqa: S101
        return Images(torch.cat([held.pixels, new.pixels]), torch.cat([held.labels, new.labels]))

    def quota(self, classes: range, candidates: ImageSet) -> dict[int, int]:
        """Class -> how many of its candidates may be kept when these classes share the budget."""
        count = self.budget.quota(max(1, len(classes)), self.image_bytes)
        available = torch.bincount(candidates.labels, minlength=classes.stop).tolist()
        return {c: available[c] if count is None else min(count, available[c]) for c in classes}

    def store(self, candidates: ImageSet, selection: Selection) -> None:
        """Keep what was selected and nothing else."""
        assert isinstance(candidates, Images), "checked before the memory is made"  # noqa: S101
        chosen = torch.cat([selection.indices[c] for c in sorted(selection.indices)]).to(candidates.labels.device)
        self.images = Images(candidates.pixels[chosen], candidates.labels[chosen])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"pixels": self.images.pixels, "labels": self.images.labels}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        device = self.images.labels.device
        self.images = Images(state["pixels"].to(device), state["labels"].to(device))


def check_selection(selection: object, candidates: ImageSet, quota: Mapping[int, int], who: str, place: object) -> None:
    """Refuse a selection that the memory cannot keep.

    Raises:
        RunFailed: it is none, lacks a class, exceeds its quota, repeats an image or names one of another class.
    """
    if not isinstance(selection, Selection):
        raise RunFailed(f"{who} returned {type(selection).__name__}; return a Selection; the run stopped {place}")
    labels, fault = candidates.labels, ""
    if selection.indices.keys() != quota.keys():
        fault = f"selects from classes {sorted(selection.indices)}, the quota names {sorted(quota)}"
    for label, indices in selection.indices.items():
        if fault:
            break
        if len(indices) > quota[label]:
            fault = f"selects {len(indices)} images of class {label}, whose quota is {quota[label]}"
        elif len(indices.unique()) < len(indices):
            fault = f"selects an image of class {label} twice"
        elif not ((indices >= 0) & (indices < len(labels))).all() or (labels[indices] != label).any():
            fault = f"selects for class {label} what is no image of it"
    if fault:
        raise RunFailed(f"{who} {fault}; the run stopped {place}")
