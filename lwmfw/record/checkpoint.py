"""Checkpoints at step boundaries: safetensors and JSON under a SHA-256 manifest, no pickle.

A checkpoint is a folder, written under another name and renamed when it is whole. It is read only after every digest
fits, from the bytes that were hashed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from lwmfw.errors import (
    FOREIGN,
    CheckpointRefused,
    LwmfwError,
    RunFailed,
    describe,
    is_out_of_memory,
    one_line,
    shown,
)
from lwmfw.model.growing import Model, check_state
from lwmfw.record.files import LARGE, TooLarge, bounded, remove, told_of_disk, write_bytes
from lwmfw.record.results import Results

_OWN = "make a plug-in's own parts in before_run"
_INSIDE = "inside-"
_ON_DEVICE = "on_device"  # which tensors of components were where the model is, and go there again
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_EVERY_STEP = "every-step"  # a file: its being there says that no checkpoint is removed for being old
_FOLDER = "folder"  # of a manifest: the name of its folder, or two that change places would not be found


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after a step.

    Attributes:
        path: its folder; of one in memory only, the folder's name.
        model: state of the model.
        components: name within the recipe -> what the component's `state()` returned.
        results: of the finished steps.
        facts: plain values of the run, such as the number of threads.
    """

    path: Path
    model: dict[str, Tensor]
    components: dict[str, dict[str, Any]]
    results: Results
    facts: dict[str, Any]

    def with_parts_of(self, model: Model) -> Checkpoint:
        """The same with the parts of plug-ins that a model has, its own where there are none here."""
        own = {name: value for name, value in model.state_dict().items() if name.startswith("extras.")}
        rest = {name: value for name, value in self.model.items() if name in own or not name.startswith("extras.")}
        return replace(self, model=own | rest)

    def without_extras(self) -> Checkpoint:
        """The same without the parts that plug-ins put into the model."""
        model = {name: value for name, value in self.model.items() if not name.startswith("extras.")}
        return replace(self, model=model)


class _State(BaseModel, strict=True):
    """What state.json has, apart from results; older ones do not state all facts."""

    class Facts(BaseModel, strict=True, extra="allow"):
        threads: int = Field(ge=1, le=4096)
        arithmetic: str
        torch: str = ""
        settings: dict[str, Any] = {}
        preprocessing: dict[str, Any] = {}
        on_device: list[str] = []

    components: dict[str, dict[str, Any]]
    facts: Facts


def take(model: Model, components: Mapping[str, Any], results: Results, facts: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of the last finished step, in memory; what happens later does not change it.

    Raises:
        WrongAnswer: the model has a state that cannot be kept.
    """
    check_state(model)
    states: dict[str, dict[str, Any]] = {}
    there = []
    for name, component in components.items():
        state = component.state()
        states[name] = {k: _copy(v) if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in state.items()}
        there += [f"{name}/{k}" for k, v in state.items() if isinstance(v, Tensor) and v.device.type != "cpu"]
    weights = {name: _copy(value) for name, value in model.state_dict().items()}
    path = Path(_name(len(results.steps)))
    facts = {**facts, _ON_DEVICE: there} if there else dict(facts)
    return Checkpoint(path, weights, states, results.copied(), facts)


def with_state_of(name: str, kept: Checkpoint, now: Checkpoint) -> Checkpoint:
    """A checkpoint, but for the state of one component, which is that of another checkpoint."""
    there = [key for key in kept.facts.get(_ON_DEVICE, ()) if not key.startswith(f"{name}/")]
    there += [key for key in now.facts.get(_ON_DEVICE, ()) if key.startswith(f"{name}/")]
    components = {**kept.components, name: now.components[name]}
    return replace(kept, components=components, facts=kept.facts | ({_ON_DEVICE: there} if there else {}))


def _copy(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def save(folder: Path, kept: Checkpoint) -> None:
    """Write the checkpoint of the last finished step, and remove what `remove_older` does."""
    _write(folder / kept.path.name, kept)
    remove_older(folder)


def save_inside(folder: Path, kept: Checkpoint, step: int, serial: int) -> None:
    """Write where a run is inside a step, and remove where it was before."""
    place = folder / f"{_INSIDE}{step:04d}-{serial:06d}"
    _write(place, kept)
    remove_older(folder, place)


def inside(folder: Path, step: int) -> Path | None:
    """The folder that says where a run was inside a step; None: it is not known."""
    found = [path for path in _unfinished(folder) if path.name.startswith(f"{_INSIDE}{step:04d}-")]
    return found[-1] if found else None


def set_aside(path: Path) -> Path:
    """Give a damaged folder another name, under which it is not read, and return that."""
    aside = path.with_name(f"damaged-{path.name}")
    remove(aside)
    with told_of_disk(aside):
        path.replace(aside)
    return aside


def left_inside(folder: Path) -> int:
    """The step that a run was left inside of, where that is kept; 0: it is not."""
    newest, places = max(steps(folder), default=0), _unfinished(folder)
    begun = [step for step, _ in map(_numbers, places) if not newest or step == newest + 1]
    return max(begun, default=0)  # behind an origin a run has no checkpoint of its own before its first step


def keep_every_step(folder: Path) -> None:
    """Have the checkpoints of all steps kept from now on, whoever goes on with the run.

    That is remembered here and not in the recipe: it changes no number, and a run goes on as one of its recipe whether
    it is kept so or not.
    """
    with told_of_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / _EVERY_STEP, b"")


def remove_older(folder: Path, place: Path | None = None) -> None:
    """Remove all checkpoints but the newest and the first, which other runs can use, unless every step's are kept;
    those that were not written to the end; and where a run was inside a step, but for the place where it is."""
    older = [] if (folder / _EVERY_STEP).exists() else finished(folder)[:-1]
    stale = [path for path in _unfinished(folder) if path != place]
    for path in [*older, *stale, *folder.glob("step-*.tmp"), *folder.glob(f"{_INSIDE}*.tmp")]:
        if path.name != _name(1):
            remove(path)


def _unfinished(folder: Path) -> list[Path]:
    """The folders of places inside a step, oldest first."""
    form = re.compile(_INSIDE + r"\d{4,}-\d{6,}")
    return sorted((path for path in folder.glob(f"{_INSIDE}*") if form.fullmatch(path.name)), key=_numbers)


def _numbers(folder: Path) -> list[int]:
    """The step of a checkpoint, and the serial number of a place inside one."""
    return [int(number) for number in folder.name.split("-")[1:]]


def _write(final: Path, kept: Checkpoint) -> None:
    tensors = {f"model.{name}": value for name, value in kept.model.items()}
    plain: dict[str, dict[str, Any]] = {}
    for name, state in kept.components.items():
        # safetensors hands tensors back in any order; None keeps a tensor's place among the plain values
        plain[name] = {key: None if isinstance(value, Tensor) else value for key, value in state.items()}
        tensors |= {f"component.{name}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    state_json = json.dumps({"results": kept.results.to_json(), "components": plain, "facts": kept.facts})
    contents = {_TENSORS: safetensors.torch.save(tensors), _STATE: state_json.encode()}
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[_MANIFEST] = json.dumps(manifest | {_FOLDER: final.name}).encode()

    unfinished = final.with_name(f"{final.name}.tmp")
    remove(unfinished)
    with told_of_disk(final):
        unfinished.mkdir(parents=True)
    for name, content in contents.items():
        write_bytes(unfinished / name, content)
    remove(final)
    with told_of_disk(final):
        unfinished.replace(final)
        _sync(final.parent)


def finished(folder: Path) -> list[Path]:
    """The folders of whole checkpoints, oldest first."""
    if not os.path.isdir(folder):  # which takes a name that no folder can have, too
        return []
    whole = (path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{4,}", path.name))
    return sorted(whole, key=_numbers)


def steps(folder: Path) -> list[int]:
    """The steps that a folder has whole checkpoints of."""
    return [step for path in finished(folder) for step in _numbers(path)]


def _name(step: int) -> str:
    return f"step-{step:04d}"


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint's tensors, as its manifest has it."""
    return _read_manifest(path / _MANIFEST)[_TENSORS]


def load(folder: Path, step: int | None = None) -> Checkpoint | None:
    """The newest checkpoint, or that of a step; None if there is none.

    Raises:
        CheckpointRefused: a file is missing, damaged or not what its digest says.
    """
    found = [path for path in finished(folder) if step is None or path.name == _name(step)]
    if not found:
        return None
    return read(found[-1])


def read(path: Path) -> Checkpoint:
    """What lies in a folder; raises as `load`."""
    contents = _verified(path)
    try:
        state = json.loads(contents[_STATE])
        tensors = safetensors.torch.load(contents[_TENSORS])
        _State.model_validate(state)
        components: dict[str, dict[str, Any]] = state["components"]
        for name, value in tensors.items():
            if name.startswith("component."):
                component, _, key = name.removeprefix("component.").partition("/")
                components[component][key] = value
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        return Checkpoint(path, model, components, Results.from_json(state["results"]), state["facts"])
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointRefused(f"{path}: of another format ({type(error).__name__}); start the run anew") from error


def restore(
    checkpoint: Checkpoint, model: Model, components: Mapping[str, Any], mended: Mapping[str, str] = {}
) -> None:
    """Put the state of a checkpoint into a model that has grown and into the components.

    Args:
        checkpoint: what was kept.
        model: that has grown to as many classes.
        components: by name.
        mended: component -> its plug-in file, where that is another than the one that has made its state.

    Raises:
        CheckpointRefused: the model has other parts than the checkpoint, or a component does not take its state back.
    """
    try:
        missing, unexpected = model.take_state(checkpoint.model)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:  # parts of another shape, or no tensors
        raise CheckpointRefused(f"{checkpoint.path}: does not fit the recipe: {one_line(error)}") from error
    if missing or unexpected:
        which = f"lacks {missing[0]}" if missing else f"holds {min(unexpected)}, which nothing made"
        named = missing[0] if missing else min(unexpected)
        grown = "let grow_model grow the network as it was" if named.startswith("backbone.") else ""
        raise CheckpointRefused(f"{checkpoint.path}: {which}; {grown or _OWN}")
    there, device = set(checkpoint.facts.get(_ON_DEVICE, ())), model.device
    for name, component in components.items():
        if name in checkpoint.components:
            state = checkpoint.components[name]
            given = {k: _given(v, device if f"{name}/{k}" in there else None) for k, v in state.items()}
            with taking_back(checkpoint.path, name, mended.get(name, "")):
                component.restore(given)


@contextmanager
def taking_back(path: Path, name: str, mended: str = "") -> Iterator[None]:
    """Inside, a part of a run is given its state; that it does not take it says that the checkpoint is none of its, or
    that its plug-in file, which was mended, is none that goes on with it."""
    try:
        yield
    except FOREIGN as error:
        ours = isinstance(error, LwmfwError)
        if is_out_of_memory(error) or (ours and not isinstance(error, RunFailed)):
            raise
        told = str(error) if ours else describe(error)
        who = shown(name.strip("[]"))
        other = f"mend {shown(mended)}, which takes the place of the file that made it, or leave --plugins out"
        what = other if mended else remedy(path)
        raise CheckpointRefused(f"{path}: does not hold a state of {who} ({told}); {what}") from error


def _given(value: Any, device: torch.device | None) -> Any:
    """A value of a state as a component is given it, which may change it in place."""
    return value.to(device, copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)


def _verified(path: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        manifest = _read_manifest(path / _MANIFEST)
        for name in (_TENSORS, _STATE):
            contents[name] = bounded(path / name, LARGE) if name == _STATE else (path / name).read_bytes()
            actual = hashlib.sha256(contents[name]).hexdigest()
            if actual != manifest[name]:
                raise CheckpointRefused(
                    f"{path / name}: damaged, sha256 is {actual}, the manifest says {manifest[name]}; {remedy(path)}"
                )
        if manifest[_FOLDER] != path.name:
            raise CheckpointRefused(
                f"{path / _MANIFEST}: is of {shown(manifest[_FOLDER])}, whose state has the sha256 {manifest[_STATE]}; "
                f"{remedy(path)}"
            )
    except TooLarge as error:
        raise CheckpointRefused(f"{path / _STATE}: {error}; {remedy(path)}") from error
    except OSError as error:
        raise CheckpointRefused(f"{path}: incomplete ({error}); {remedy(path)}") from error
    return contents


def remedy(path: Path) -> str:
    """What a person can do about a checkpoint that is refused."""
    if path.name.startswith(_INSIDE):
        step = _numbers(path)[0] - 1
        return f"restore it, or remove {path} to go on from {f'the end of step {step}' if step else 'the beginning'}"
    return "restore it or start the run anew"


def _read_manifest(file: Path) -> dict[str, str]:
    try:
        manifest = json.loads(bounded(file))
        if manifest.keys() - {_TENSORS, _STATE, _FOLDER}:
            raise KeyError("a part that none has")
        named = {name: str(manifest[name]) for name in (_TENSORS, _STATE)}
        return named | {_FOLDER: str(manifest.get(_FOLDER, file.parent.name))}  # which older ones do not say
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointRefused(f"{file}: damaged; {remedy(file.parent)}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
