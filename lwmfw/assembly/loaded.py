"""What a data set may load, and what images a hook may hand over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lwmfw.assembly.told import told
from lwmfw.errors import shown


def data_set(answer: Any) -> str:
    """Of a data set's load."""
    import torch

    from lwmfw.data.images import DataSet, ImageFiles, Images

    if not isinstance(answer, DataSet):
        return f"returned {told(answer)}; return a DataSet"
    names = answer.class_names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "returned class_names that are no list of strings; give each label a name"
    for part in ("train", "test"):
        images = getattr(answer, part)
        if not isinstance(images, Images | ImageFiles):
            return f"returned {told(images)} as {part}; give Images or ImageFiles"
        wrong = images_fault(images, torch.device("cpu"))
        if wrong:
            return f"returned {part} images whose {wrong}"
        if len(images) and not 0 <= int(images.labels.min()) <= int(images.labels.max()) < len(names):
            return f"returned {part} labels outside 0..{len(names) - 1}, the positions of class_names"
    train, test = answer.train, answer.test
    if type(train) is not type(test) or (train.channels, train.size) != (test.channels, test.size):
        return "returned train and test images of different sorts or sizes; make them alike"
    for part, least in (("mean", -math.inf), ("std", 0.0)):
        values = getattr(answer, part)
        if not _numbers(values, train.channels) or not all(least < v < math.inf for v in values):
            return f"returned {part} = {shown(repr(values))}; give {train.channels} numbers, one per channel"
    padding, skipped = answer.padding, answer.skipped
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= padding <= train.size:
        return f"returned padding = {shown(repr(padding))}; give a whole number of pixels, {train.size} at most"
    if not isinstance(answer.flip, bool):
        return f"returned flip = {shown(repr(answer.flip))}; give true or false"
    if not _numbers([answer.brightness], 1) or not 0 <= answer.brightness <= 1:
        return f"returned brightness = {shown(repr(answer.brightness))}; give a number of 0 to 1"
    if not isinstance(skipped, list) or not all(isinstance(path, str) for path in skipped):
        return "returned skipped files that are no list of strings; name each by its path"
    return ""


def images_fault(images: Any, device: Any) -> str:
    """What is wrong with a set of images: uint8 pixels or paths, and a label of int64 for each."""
    import torch
    from torch import Tensor

    from lwmfw.data.images import Images, StoredImage

    labels = images.labels
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1 or labels.device != device:
        return f"labels are {told(labels)}; give torch.int64 of shape (N,) on {device}"
    if not isinstance(images, Images):
        paths, sizes = images.paths, (images.size, images.resize)
        if not isinstance(paths, Sequence) or isinstance(paths, str) or len(paths) != len(labels):
            return "paths are not one for each label; list them"
        other = next((path for path in paths if not isinstance(path, str | StoredImage)), "")
        if other:
            return f"paths hold {told(other)}; give each as a string"
        if not all(isinstance(size, int) and size > 0 for size in sizes) or images.size > images.resize:
            return f"size is {images.size!r} and resize {images.resize!r}; give pixels, size at most resize"
        if images.channels not in (1, 3):
            return f"channels are {images.channels!r}; give 3, or 1 for grey"
        return ""
    pixels = images.pixels
    form = isinstance(pixels, Tensor) and pixels.dtype == torch.uint8 and pixels.ndim == 4
    if not form or len(pixels) != len(labels) or pixels.device != device:
        return f"pixels are {told(pixels)}; give torch.uint8 of shape ({len(labels)}, C, H, W) on {device}"
    channels, height, width = pixels.shape[1:]
    if height != width or not channels or not height:
        return f"pixels are {told(pixels)}; give square images, of a channel and a pixel at least"
    return ""


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )
