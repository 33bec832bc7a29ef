"""What hooks and the methods of kinds may answer: two tables, applied in calls.py, where provider and name are known.

An entry says in words what is wrong with an answer, or nothing. Whoever adds a hook or a method adds its entry; a
moment returns nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lwmfw.errors import shown
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.tables import StepSettings

if TYPE_CHECKING:
    from torch import Tensor

Offered = Mapping[str, Any]
_GROUP_KEYS = ("params", "lr", "momentum", "weight_decay")


def told(value: object) -> str:
    """A value as a message names it: tensors by dtype and shape, all else by type."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return "None" if value is None else type(value).__name__
    where = f" on {value.device}" if getattr(getattr(value, "device", None), "type", "cpu") != "cpu" else ""  # type: ignore[attr-defined]
    return f"{dtype} of shape {tuple(shape)}{where}"


def nothing(answer: object, offered: Offered) -> str:
    """A moment's answer."""
    return "" if answer is None else f"returned {told(answer)}; a moment returns nothing"


def chosen_data(answer: Any, offered: Offered) -> str:
    """Of choose_data: None, or all exemplars and part of the new images, in their order."""
    data, memory = offered["data"], offered["run"].memory
    if answer is None:
        return ""
    if type(answer) is not type(data):
        return f"returned {told(answer)}; return {type(data).__name__} such as `data.select(index)`, or None"
    wrong = images_fault(answer, data.labels.device)
    if wrong:
        return f"returned images whose {wrong}"
    held = len(memory.exemplars) if memory else 0
    if answer.labels[:held].tolist() != data.labels[:held].tolist() or bool((answer.labels.diff() < 0).any()):
        return "left out exemplars or changed their order; leave out new images only"
    if not set(answer.labels.unique().tolist()) <= set(data.labels.unique().tolist()):
        return "returned images of classes that are not the step's; leave out images, and nothing else"
    return ""


def phases(answer: Any, offered: Offered) -> str:
    """Of plan_phases: None, or phases that could stand in [training]."""
    if answer is None:
        return ""
    if not isinstance(answer, list | tuple) or not all(isinstance(phase, Phase) for phase in answer):
        what = told(answer) if not isinstance(answer, list | tuple) else "a list of " + _types(answer)
        return f"returned {what}; return a list of Phase, such as [replace(main, name=...)], or None"
    for phase in answer:
        if not (isinstance(phase.name, str) and phase.name):
            return f"plans a phase named {phase.name!r}; name it by a string"
        if [other.name for other in answer].count(phase.name) > 1:
            return f"plans two phases named '{phase.name}'; name them apart"
        values = dict(vars(phase))
        own = {key: values.pop(key) for key in ("name", "balanced", "penalties")}
        flags = [key for key in ("balanced", "penalties") if not isinstance(own[key], bool)]
        if flags:
            return f"plans phase '{phase.name}' with {flags[0]} = {own[flags[0]]!r}; give true or false"
        try:
            StepSettings.model_validate(values)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False, include_context=False)
            key = ".".join(map(str, first["loc"]))
            return f"plans phase '{phase.name}' with {key} = {first['input']!r}; {first['msg'].lower()}"
    return ""


def parameter_groups(answer: Any, offered: Offered) -> str:
    """Of group_parameters: None, or groups as torch's optimisers take them."""
    if answer is None:
        return ""
    if not isinstance(answer, list | tuple) or not all(isinstance(group, Mapping) for group in answer):
        what = told(answer) if not isinstance(answer, list | tuple) else "a list of " + _types(answer)
        return f'returned {what}; return a list of dicts such as {{"params": [...], "lr": 0.01}}, or None'
    known = {id(parameter) for parameter in offered["model"].parameters()}
    grouped: list[int] = []
    for group in answer:
        unknown = [key for key in group if key not in _GROUP_KEYS]
        if unknown or "params" not in group:
            which = f"the key {unknown[0]!r}" if unknown else "no params"
            return f"returned a group with {which}; a group has {', '.join(_GROUP_KEYS)}"
        listed = group["params"]
        if not isinstance(listed, list | tuple) or not all(id(p) in known for p in listed):
            return "returned a group whose params are no list of parameters of the model; take them from `model`"
        grouped += map(id, listed)
        if len(set(grouped)) < len(grouped):
            return "groups a parameter twice; leave it out once"
        for key in group.keys() - {"params"}:
            value = group[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                return f"returned a group with {key} = {value!r}; give a number from 0 on"
    return ""


def terms(answer: Any, offered: Offered) -> str:
    """Of compute_penalty: None, or name -> scalar."""
    if answer is None:
        return ""
    if not isinstance(answer, Mapping):
        return f"returned {told(answer)}; return a dict of name -> scalar"
    for term, value in answer.items():
        if not isinstance(term, str):
            return f"names a term {term!r}; name it by a string"
        wrong = scalar_fault(value, offered["batch"].images.device)
        if wrong:
            return f"returned term {term!r} as {wrong}"
    return ""


def quota(answer: Any, offered: Offered) -> str:
    """Of allocate_memory: class -> a whole number."""
    classes = offered["classes"]
    if not isinstance(answer, Mapping) or answer.keys() != set(classes):
        what = f"a quota of classes {_listed(answer)}" if isinstance(answer, Mapping) else told(answer)
        return f"returned {what}; return a number for each class of {classes.start}..{classes.stop - 1}"
    for label, count in answer.items():
        if isinstance(count, bool) or not isinstance(count, int):
            return f"returned a quota of {told(count)} for class {label}; return whole numbers"
        if count < 0:
            return f"returned a quota below 0 for class {label}; return whole numbers from 0 on"
    return ""


def selection(answer: Any, offered: Offered) -> str:
    """Of select_memory: a Selection that the memory can keep."""
    from lwmfw.memory.selection import Selection, selection_fault

    if not isinstance(answer, Selection):
        return f"returned {told(answer)}; return a Selection"
    return selection_fault(answer, offered["candidates"], offered["quota"])


def kept_extra(answer: Any, offered: Offered) -> str:
    """After after_step: nothing is returned, and what was added to the results is plain."""
    return nothing(answer, offered) or plain_fault(
        "added", offered["result"].extra, "add numbers, strings, lists and dicts"
    )


def data_set(answer: Any) -> str:
    """Of a data set's load."""
    import torch

    from lwmfw.data.images import DataSet, ImageFiles, Images

    if not isinstance(answer, DataSet):
        return f"returned {told(answer)}; return a DataSet"
    names = answer.class_names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
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
        return ""
    pixels = images.pixels
    form = isinstance(pixels, Tensor) and pixels.dtype == torch.uint8 and pixels.ndim == 4
    if not form or len(pixels) != len(labels) or pixels.device != device:
        return f"pixels are {told(pixels)}; give torch.uint8 of shape ({len(labels)}, C, H, W) on {device}"
    channels, height, width = pixels.shape[1:]
    if height != width or not channels or not height:
        return f"pixels are {told(pixels)}; give square images, of a channel and a pixel at least"
    return ""


def network(answer: Any, *arguments: object) -> str:
    """Of a backbone's build."""
    from torch import nn

    return "" if isinstance(answer, nn.Module) else f"returned {told(answer)}; return an nn.Module"


def head(answer: Any, *arguments: object) -> str:
    """Of a classifier's build."""
    grows = callable(getattr(answer, "grow", None))
    return network(answer) or ("" if grows else "returned a module without grow(classes); define it")


def scalar(answer: Any, logits: Tensor, labels: Tensor) -> str:
    """Of an objective's loss."""
    wrong = scalar_fault(answer, logits.device)
    return f"returned {wrong}" if wrong else ""


def scalar_fault(value: Any, device: Any) -> str:
    """What a value is that should be a scalar tensor of floating type on a device; empty: it is one."""
    from torch import Tensor

    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        return f"{told(value)}; return a scalar tensor of floating type"
    if value.device != device:
        return f"a scalar on {value.device}; the model is on {device}"
    return ""


def encoded(answer: Any, pixels: Tensor) -> str:
    """Of a codec's encode."""
    if not isinstance(answer, list) or not all(type(each) is bytes for each in answer):
        what = told(answer) if not isinstance(answer, list) else "a list of " + _types(answer)
        return f"returned {what}; return a list of bytes"
    if len(answer) != len(pixels):
        return f"encoded {len(pixels)} images as {len(answer)}; return the bytes of each"
    return ""


def decoded(answer: Any, streams: Sequence[bytes], shape: tuple[int, int, int]) -> str:
    """Of a codec's decode."""
    import torch

    wanted = (len(streams), *shape)
    fits = isinstance(answer, torch.Tensor) and (answer.dtype, answer.shape) == (torch.uint8, wanted)
    if fits and answer.device.type == "cpu":
        return ""
    return f"returned {told(answer)}; return torch.uint8 of shape {wanted} on the CPU"


def byte_count(answer: Any, shape: object) -> str:
    """Of a codec's shared_bytes."""
    if isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0:
        return ""
    return f"returned {answer!r}; return a whole number of bytes"


def state(answer: Any) -> str:
    """Of any component's state."""
    from torch import Tensor

    if not isinstance(answer, dict) or not all(isinstance(key, str) for key in answer):
        return f"returned {told(answer)}; return a flat dict of tensors and plain values"
    held = [key for key, value in answer.items() if isinstance(value, Tensor) and value.device.type == "meta"]
    if held:
        return f"returned '{held[0]}' as a tensor without values; return ordinary tensors"
    plain = {key: value for key, value in answer.items() if not isinstance(value, Tensor)}
    return plain_fault("holds", plain, "return a flat dict of tensors and plain values")


def plain_fault(verb: str, values: Mapping[str, Any], advice: str) -> str:
    """What JSON does not keep of some values."""
    for key, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return f"{verb} '{key}', which cannot be kept ({error}); {advice}"
    return ""


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )


def _types(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(type(value).__name__ for value in values))


def _listed(answer: Mapping[Any, Any]) -> str:
    return "[" + ", ".join(sorted(map(str, answer))) + "]"


HOOKS: dict[str, Callable[[Any, Offered], str]] = {
    "choose_data": chosen_data,
    "plan_phases": phases,
    "group_parameters": parameter_groups,
    "compute_penalty": terms,
    "allocate_memory": quota,
    "select_memory": selection,
    "after_step": kept_extra,
}
"""Hook -> what is wrong with its answer, given what it was offered; every other hook of a run is a moment."""

METHODS: dict[str, Callable[..., str]] = {
    "data.load": data_set,
    "backbone.build": network,
    "classifier.build": head,
    "objective.loss": scalar,
    "codec.encode": encoded,
    "codec.decode": decoded,
    "codec.shared_bytes": byte_count,
    "state": state,
}
"""Kind and method, or the method of any kind -> what is wrong with its answer, given its arguments."""
