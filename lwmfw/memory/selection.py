"""Which exemplars are kept: the selection, and what it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lwmfw.data.images import ImageFiles, Images, ImageSet
from lwmfw.errors import RunFailed


@dataclass(frozen=True)
class Selection:
    """The exemplars that a selector chose, and that refiners changed.

    Attributes:
        indices: class -> positions among the candidates (K,), int64, the most important first.
        pixels: class -> what is stored in the place of those candidates (K, C, H, W), uint8; a class that is not here
            is stored as it is. Images in memory only.
    """

    indices: dict[int, Tensor]
    pixels: dict[int, Tensor] = field(default_factory=dict)

    @property
    def order(self) -> Tensor:
        """Positions among the candidates (N,), class by class."""
        return torch.cat([self.indices[label] for label in sorted(self.indices)])

    def images(self, candidates: ImageSet) -> ImageSet:
        """What was selected, class by class, as refiners left it."""
        chosen = candidates.select(self.order.to(candidates.labels.device))
        if not self.pixels or isinstance(chosen, ImageFiles):
            return chosen
        pixels = chosen.pixels.clone()
        for label, changed in self.pixels.items():
            pixels[chosen.labels == label] = changed.to(pixels)
        return Images(pixels, chosen.labels)


def at_most(quota: object, candidates: ImageSet, classes: range, who: str, place: object) -> dict[int, int]:
    """A rate's quota of each class, no more than there are candidates.

    Raises:
        RunFailed: it is none, or is of other classes.
    """
    if not isinstance(quota, Mapping) or quota.keys() != set(classes):
        what = f"a quota of classes {sorted(quota)}" if isinstance(quota, Mapping) else type(quota).__name__
        raise RunFailed(
            f"{who} returned {what}; return a number for each class of {classes.start}..{classes.stop - 1}; "
            f"the run stopped {place}"
        )
    if any(count < 0 for count in quota.values()):
        raise RunFailed(f"{who} returned a quota below 0; the run stopped {place}")
    available = torch.bincount(candidates.labels, minlength=classes.stop).tolist()
    return {c: min(int(quota[c]), available[c]) for c in classes}


def check_chosen_data(chosen: ImageSet, data: ImageSet, held: int, who: str, place: object) -> None:
    """Refuse training data that lack an exemplar: the memory finds its own among the first ones.

    Raises:
        RunFailed: naming who chose.
    """
    if not torch.equal(chosen.labels[:held], data.labels[:held]) or (chosen.labels.diff() < 0).any():
        raise RunFailed(f"{who} left out exemplars or changed their order; leave out new images only; stopped {place}")


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
    for label, pixels in () if fault else selection.pixels.items():
        if isinstance(candidates, ImageFiles):
            fault = 'changes pixels of photographs that stay in their files; set data.decode = "once"'
        elif label not in selection.indices:
            fault = f"changes pixels of class {label}, of which it selects nothing"
        elif _form(pixels) != (torch.uint8, (len(selection.indices[label]), *candidates.pixels.shape[1:])):
            wanted = (len(selection.indices[label]), *candidates.pixels.shape[1:])
            fault = f"has {_told(pixels)} for class {label}; give torch.uint8 of shape {wanted}"
    if fault:
        raise RunFailed(f"{who} {fault}; the run stopped {place}")


def _form(pixels: object) -> tuple[torch.dtype, tuple[int, ...]] | None:
    return (pixels.dtype, tuple(pixels.shape)) if isinstance(pixels, Tensor) else None


def _told(pixels: object) -> str:
    form = _form(pixels)
    return f"{form[0]} of shape {form[1]}" if form else type(pixels).__name__
