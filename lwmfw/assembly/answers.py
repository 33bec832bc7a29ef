"""What hooks and the methods of kinds may answer: two tables, applied in calls.py, where provider and name are known.

An entry says in words what is wrong with an answer, or nothing. Whoever adds a hook or a method adds its entry; a
moment returns nothing.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lwmfw.assembly.loaded import data_set, images_fault
from lwmfw.assembly.told import told
from lwmfw.errors import FOREIGN, WrongAnswer, describe, one_line, quoted, shown
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.tables import StepSettings

if TYPE_CHECKING:
    from torch import Tensor

Offered = Mapping[str, Any]
_GROUP_KEYS = ("params", "lr", "momentum", "weight_decay")


def nothing(answer: object, offered: Offered) -> str:
    """A moment's answer."""
    return "" if answer is None else f"returned {told(answer)}; a moment returns nothing"


def grown(answer: Any, offered: Offered) -> str:
    """Of grow_model: None, or a network that answers as a backbone has to."""
    model = offered["model"]
    fault = "" if answer is None else network(answer)
    if answer is None or fault or model.image is None:
        return fault
    return _network_fault(answer, model.image)


def _network_fault(answer: Any, image: tuple[int, int, int]) -> str:
    import torch

    from lwmfw.model.growing import probed

    try:
        probed(answer, torch.zeros(1, *image))
    except WrongAnswer as error:
        return f"returned a network of which {error}"
    except FOREIGN as error:
        return f"returned a network that raised {describe(error)}; return one that takes images of {image}"
    return ""


def chosen_data(answer: Any, offered: Offered) -> str:
    """Of choose_data: None, or part of the images in their order and as they are, new ones among them."""
    data, memory = offered["data"], offered["run"].memory
    if answer is None:
        return ""
    if type(answer) is not type(data):
        return f"returned {told(answer)}; return {type(data).__name__} such as `data.select(index)`, or None"
    wrong = images_fault(answer, data.labels.device)
    if wrong:
        return f"returned images whose {wrong}"
    rest = iter(_identities(data))
    if not all(image in rest for image in _identities(answer)):  # each is looked for behind the one before
        return "returned images that are not the step's, twice or in another order; leave some out, and nothing else"
    first_new = offered["step"].new_classes.start if memory else 0
    return "" if (answer.labels >= first_new).any() else "left out every new image; leave some"


def _identities(images: Any) -> list[Any]:
    """What tells each image from others: its class, and its pixels or its file."""
    labels = images.labels.tolist()
    pixels = getattr(images, "pixels", None)
    if pixels is None:
        return list(zip(labels, images.paths, strict=True))
    hashes = [(tuple(image.shape), hash(image.tobytes())) for image in pixels.cpu().numpy()]
    return list(zip(labels, hashes, strict=True))


def phases(answer: Any, offered: Offered) -> str:
    """Of plan_phases: None, or phases that could stand in [training]."""
    if answer is None:
        return ""
    if not isinstance(answer, list | tuple) or not all(isinstance(phase, Phase) for phase in answer):
        return f"returned {_list_told(answer)}; return a list of Phase, such as [replace(main, name=...)], or None"
    for phase in answer:
        if not (isinstance(phase.name, str) and phase.name):
            return f"plans a phase named {quoted(phase.name)}; name it by a string"
        name = shown(phase.name)
        if [other.name for other in answer].count(phase.name) > 1:
            return f"plans two phases named '{name}'; name them apart"
        values = dict(vars(phase))
        own = {key: values.pop(key) for key in ("name", "balanced", "penalties", "temperature", "optional")}
        flags = [key for key in ("balanced", "penalties", "optional") if not isinstance(own[key], bool)]
        if flags:
            return f"plans phase '{name}' with {flags[0]} = {quoted(own[flags[0]])}; give true or false"
        wrong = _setting_fault(values)
        if not wrong and not _positive(own["temperature"]):
            wrong = f"temperature = {quoted(own['temperature'])}; give a number above 0"
        if wrong:
            return f"plans phase '{name}' with {wrong}"
    return ""


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def parameter_groups(answer: Any, offered: Offered) -> str:
    """Of group_parameters: None, or groups as torch's optimisers take them."""
    if answer is None:
        return ""
    if not isinstance(answer, list | tuple) or not all(isinstance(group, Mapping) for group in answer):
        return f'returned {_list_told(answer)}; return a list of dicts such as {{"params": [...], "lr": 0.01}}, or None'
    known = {id(parameter) for parameter in offered["model"].parameters()}
    grouped: list[int] = []
    for group in answer:
        unknown = [key for key in group if key not in _GROUP_KEYS]
        if unknown or "params" not in group:
            which = f"the key {shown(repr(unknown[0]))}" if unknown else "no params"
            return f"returned a group with {which}; a group has {', '.join(_GROUP_KEYS)}"
        listed = group["params"]
        if not isinstance(listed, list | tuple) or not all(id(p) in known for p in listed):
            return "returned a group whose params are no list of parameters of the model; take them from `model`"
        grouped += map(id, listed)
        if len(set(grouped)) < len(grouped):
            return "groups a parameter twice; leave it out once"
        for key in group.keys() - {"params"}:
            value = group[key]
            # a rate of 0, which no phase has, leaves a group as it is
            still = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
            wrong = "" if still else _setting_fault({key: value})
            if wrong:
                return f"returned a group with {wrong}"
    return ""


def _setting_fault(values: Mapping[str, Any]) -> str:
    """What is wrong with values that could stand in [training]: the first key, its value and why."""
    try:
        StepSettings.model_validate(values)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_context=False)
        return f"{'.'.join(map(str, first['loc']))} = {quoted(first['input'])}; {first['msg'].lower()}"
    return ""


def terms(answer: Any, offered: Offered) -> str:
    """Of compute_penalty: None, or name -> scalar."""
    if answer is None:
        return ""
    if not isinstance(answer, Mapping):
        return f"returned {told(answer)}; return a dict of name -> scalar"
    for term, value in answer.items():
        if not isinstance(term, str):
            return f"names a term {shown(repr(term))}; name it by a string"
        wrong = scalar_fault(value, offered["batch"].images.device)
        if wrong:
            return f"returned term {shown(repr(term))} as {wrong}"
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
    """After after_step: nothing is returned, and nothing but plain values of its own is added to `result.extra`."""
    result, before = offered["result"], offered["before"]
    if answer is not None:
        return nothing(answer, offered)
    changed = [name for name, value in _measured(result).items() if value != before["measured"][name]]
    if changed:
        return f"changed result.{changed[0]}; add what was measured to result.extra"
    odd = [key for key in result.extra if not isinstance(key, str)]
    if odd:
        return f"added {shown(repr(odd[0]))} to result.extra; name it by a string, best by `name`"
    lost = [key for key, value in before["extra"].items() if key not in result.extra or result.extra[key] != value]
    if lost:
        return f"changed '{shown(lost[0])}' of result.extra, which another has added; use `name` as the key"
    return plain_fault("added", result.extra, "add numbers, strings, lists and dicts")


def _measured(result: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "extra"}


def result_before(offered: Offered) -> dict[str, Any]:
    """What kept_extra compares with, taken before the hook is called."""
    result = offered["result"]
    return {"measured": copy.deepcopy(_measured(result)), "extra": copy.deepcopy(result.extra)}


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


def scores(answer: Any, features: Tensor) -> str:
    """Of a read-out's scores; how many classes there are is checked where they are used."""
    from torch import Tensor

    form = isinstance(answer, Tensor) and answer.ndim == 2 and len(answer) == len(features)
    if form and answer.is_floating_point() and answer.device == features.device:
        return ""
    return f"returned {told(answer)}; return floating scores (B, seen) for {told(features)}"


def encoded(answer: Any, pixels: Tensor) -> str:
    """Of a codec's encode."""
    if not isinstance(answer, list) or not all(type(each) is bytes for each in answer):
        return f"returned {_list_told(answer)}; return a list of bytes"
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
    return f"returned {shown(repr(answer))}; return a whole number of bytes"


def state(answer: Any) -> str:
    """Of any component's state."""
    from torch import Tensor, strided

    if not isinstance(answer, dict) or not all(isinstance(key, str) for key in answer):
        return f"returned {told(answer)}; return a flat dict of tensors and plain values by name"
    for key, value in answer.items():
        if isinstance(value, Tensor) and (value.layout != strided or value.is_quantized or value.device.type == "meta"):
            return f"returned '{shown(key)}' as {told(value)}, which cannot be kept; return ordinary tensors"
    plain = {key: value for key, value in answer.items() if not isinstance(value, Tensor)}
    return plain_fault("holds", plain, "return a flat dict of tensors and plain values")


def plain_fault(verb: str, values: Mapping[str, Any], advice: str) -> str:
    """What JSON does not keep of some values, or gives back as something else; a tuple may come back as a list."""
    for key, value in values.items():
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == _listed_tuples(value)
            reason = "" if same else "keys of a dict have to be strings"
        except (TypeError, ValueError, RecursionError) as error:
            reason = one_line(error)
        if reason:
            return f"{verb} '{shown(key)}', which cannot be kept ({reason}); {advice}"
    return ""


def _listed_tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed_tuples(each) for each in value]
    return {key: _listed_tuples(each) for key, each in value.items()} if isinstance(value, dict) else value


def _list_told(answer: object) -> str:
    """What is no list of the right things: a list or a tuple by the types in it, anything else as itself."""
    if not isinstance(answer, list | tuple) or not answer:
        return told(answer)
    kind = "list" if isinstance(answer, list) else "tuple"
    return f"a {kind} of " + ", ".join(dict.fromkeys(type(value).__name__ for value in answer))


def _listed(answer: Mapping[Any, Any]) -> str:
    return shown("[" + ", ".join(sorted(map(str, itertools.islice(answer, 100)))) + "]", 200)


HOOKS: dict[str, Callable[[Any, Offered], str]] = {
    "grow_model": grown,
    "choose_data": chosen_data,
    "plan_phases": phases,
    "group_parameters": parameter_groups,
    "compute_penalty": terms,
    "allocate_memory": quota,
    "select_memory": selection,
    "after_step": kept_extra,
}
"""Hook -> what is wrong with its answer, given what it was offered; every other hook of a run is a moment."""

BEFORE: dict[str, Callable[[Offered], Any]] = {"after_step": result_before}
"""Hook -> what is remembered before it is called; its check is offered that as `before`."""

METHODS: dict[str, Callable[..., str]] = {
    "data.load": data_set,
    "backbone.build": network,
    "classifier.build": head,
    "objective.loss": scalar,
    "readout.scores": scores,
    "codec.encode": encoded,
    "codec.decode": decoded,
    "codec.shared_bytes": byte_count,
    "state": state,
}
"""Kind and method, or the method of any kind -> what is wrong with its answer, given its arguments."""
