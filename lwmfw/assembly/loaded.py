"""What a data set may load, and what images a hook may hand over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lwmfw.assembly.told import told
from lwmfw.errors import FOREIGN, shown


def data_set(answer: Any) -> str:
    """Of a data set's load."""
    import torch

    from lwmfw.data.images import DataSet, ImageFiles, Images

    if not isinstance(answer, DataSet):
        return f"returned {told(answer)}; return a DataSet"
    names = answer.class_names
    wrong = _names_fault(names)
    if wrong:
        return wrong
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
    if isinstance(train, Images) and len(train) and train.pixels.max() == 1:
        return "returned training pixels of 0 and 1 alone, where white is 255; multiply them by 255"
    if type(train) is not type(test) or (train.channels, train.size) != (test.channels, test.size):
        return "returned train and test images of different sorts or sizes; make them alike"
    return _scale_fault(answer) or _rest_fault(answer)


def _names_fault(names: Any) -> str:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "returned class_names that are no list of strings; give each label a name"
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        return f"returned class_names with '{shown(twice)}' twice; name classes apart, or give the two one label"
    return ""


def _scale_fault(data: Any) -> str:
    count = data.train.channels
    wanted: dict[str, tuple[Callable[[float], bool], str]] = {
        "mean": (lambda value: 0 <= value <= 1, "from 0 to 1"),
        "std": (lambda value: 0 < value < math.inf, "above 0"),
    }
    for part, (holds, where) in wanted.items():
        values = getattr(data, part)
        if not _numbers(values, count) or not all(map(holds, values)):
            return (
                f"returned {part} = {shown(repr(values))}; give {count} numbers {where}, one per channel, of pixels "
                "scaled to 0..1"
            )
    return ""


def _rest_fault(data: Any) -> str:
    padding, skipped, left_out = data.padding, data.skipped, data.left_out
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= padding <= data.train.size:
        return f"returned padding = {shown(repr(padding))}; give a whole number of pixels, {data.train.size} at most"
    if not isinstance(data.flip, bool):
        return f"returned flip = {shown(repr(data.flip))}; give true or false"
    if not _numbers([data.brightness], 1) or not 0 <= data.brightness <= 1:
        return f"returned brightness = {shown(repr(data.brightness))}; give a number of 0 to 1"
    if not isinstance(skipped, list) or not all(isinstance(path, str) for path in skipped):
        return "returned skipped files that are no list of strings; name each by its path"
    if not isinstance(left_out, dict) or not all(isinstance(k, str) and type(n) is int for k, n in left_out.items()):
        return f"returned left_out = {shown(repr(left_out))}; count what was passed over, by suffix or name"
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
        return _reading_fault(images)
    pixels = images.pixels
    form = isinstance(pixels, Tensor) and pixels.dtype == torch.uint8 and pixels.ndim == 4
    if not form or len(pixels) != len(labels) or pixels.device != device:
        return f"pixels are {told(pixels)}; give torch.uint8 of shape ({len(labels)}, C, H, W) on {device}"
    channels, height, width = pixels.shape[1:]
    if height != width or not channels or not height:
        return f"pixels are {told(pixels)}; give square images, of a channel and a pixel at least"
    return ""


def _reading_fault(files: Any) -> str:
    """What is wrong with how files are to be read."""
    from PIL.ImageColor import getrgb

    values, limit = files.values, files.max_pixels
    if not (isinstance(values, list | tuple) and len(values) in (0, 2)) or not _numbers(values, len(values)):
        return f"values are {shown(repr(values))}; give (lowest, highest), or () for what the files have"
    if values and not -math.inf < values[0] < values[1] < math.inf:
        return f"values are {shown(repr(values))}; give the smaller one first, and none that is not finite"
    if type(limit) is not int or limit < 1:
        return f"max_pixels are {shown(repr(limit))}; give a whole number above 0"
    try:
        getrgb(files.background)
    except FOREIGN:
        return f"background is {shown(repr(files.background))}; name a colour, or give it as #rrggbb"
    return ""


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )
