"""Which exemplars are kept: the selection, and what it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lwmfw.data.images import ImageFiles, Images, ImageSet
from lwmfw.errors import shown

_CPU = torch.device("cpu")


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

    @property
    def ranks(self) -> Tensor:
        """How many of its class come before each of them (N,), class by class."""
        return torch.cat([torch.arange(len(self.indices[label])) for label in sorted(self.indices)])

    def images(self, candidates: ImageSet) -> ImageSet:
        """What was selected, class by class, as refiners left it."""
        chosen = candidates.select(self.order.to(candidates.labels.device))
        if not self.pixels or isinstance(chosen, ImageFiles):
            return chosen
        pixels = chosen.pixels.clone()
        for label, changed in self.pixels.items():
            pixels[chosen.labels == label] = changed.to(pixels)
        return Images(pixels, chosen.labels)


def at_most(quota: Mapping[int, int], candidates: ImageSet) -> dict[int, int]:
    """The quota of each class, no more than there are candidates of it."""
    available = torch.bincount(candidates.labels, minlength=max(quota) + 1).tolist()
    return {label: min(quota[label], available[label]) for label in sorted(quota)}


def selection_fault(selection: Selection, candidates: ImageSet, quota: Mapping[int, int]) -> str:
    """Why the memory cannot keep a selection: it lacks a class, exceeds its quota, repeats an image or names one of
    another class, or changes pixels that it may not; empty: it can."""
    labels = candidates.labels
    for part in ("indices", "pixels"):
        values = getattr(selection, part)
        wrong = [v for v in values.values() if not isinstance(v, Tensor)] if isinstance(values, dict) else [values]
        if wrong:
            return f"returned a Selection whose {part} hold {type(wrong[0]).__name__}; give class -> tensor"
    if selection.indices.keys() != quota.keys():
        ours, theirs = (shown(str(sorted(keys, key=str)), 200) for keys in (selection.indices, quota))
        return f"selects from classes {ours}, the quota names {theirs}"
    for label, indices in selection.indices.items():
        if indices.dtype != torch.int64 or indices.ndim != 1 or indices.device not in (labels.device, _CPU):
            return f"selects by {_told(indices)} for class {label}; give torch.int64 of shape (K,) on {labels.device}"
        if len(indices) > quota[label]:
            return f"selects {len(indices)} images of class {label}, whose quota is {quota[label]}"
        if len(indices.unique()) < len(indices):
            return f"selects an image of class {label} twice"
        if not ((indices >= 0) & (indices < len(labels))).all() or (labels[indices] != label).any():
            return f"selects for class {label} what is no image of it"
    return _pixels_fault(selection, candidates)


def _pixels_fault(selection: Selection, candidates: ImageSet) -> str:
    for label, pixels in selection.pixels.items():
        if isinstance(candidates, ImageFiles):
            return 'changes pixels of photographs that stay in their files; set data.decode = "once"'
        if label not in selection.indices:
            return f"changes pixels of class {label}, of which it selects nothing"
        wanted = (len(selection.indices[label]), *candidates.pixels.shape[1:])
        places = (candidates.labels.device, _CPU)
        if (pixels.dtype, tuple(pixels.shape)) != (torch.uint8, wanted) or pixels.device not in places:
            return f"has {_told(pixels)} for class {label}; give torch.uint8 of shape {wanted}"
    return ""


def _told(tensor: Tensor) -> str:
    where = "" if tensor.device == _CPU else f" on {tensor.device}"
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}{where}"
