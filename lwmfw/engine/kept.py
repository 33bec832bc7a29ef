"""What is kept of a run: its parts, and the random numbers, optimiser and sums that an update hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lwmfw.data.loader import Preprocessing
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lwmfw.engine.run import Run

_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")
"""What of a schedule changes with its updates; the rest is made with it."""


def snapshot(run: Run) -> Checkpoint:
    """The finished steps as a checkpoint in memory."""
    return checkpoint.take(run.model, stateful(run), run.results, facts(run))


def facts(run: Run) -> dict[str, Any]:
    """How a run is computed."""
    return {
        "threads": torch.get_num_threads(),
        "arithmetic": run.arithmetic,
        "torch": str(torch.__version__),
        "settings": run.settings,
        "preprocessing": asdict(Preprocessing.of(run.data)),
    }


def stateful(run: Run) -> dict[str, Any]:
    """What a checkpoint keeps besides model and results, by name; no component is named with brackets."""
    parts: dict[str, Any] = {
        name: SimpleNamespace(state=part.method("state"), restore=part.method("restore"))
        for name, part in run.assembly.components.items()
        if part.trait("state")
    }
    return parts | ({"[memory]": run.memory} if run.memory else {})


class Generators:
    """The random numbers of a run: torch's global ones, and those of the components."""

    def __init__(self, run: Run) -> None:
        self._rng, self._cuda = run.rng, run.device.type == "cuda"

    def state(self) -> dict[str, Any]:
        """Where they stand."""
        whole = {"[global]": torch.get_rng_state()} | ({"[cuda]": torch.cuda.get_rng_state()} if self._cuda else {})
        return whole | self._rng.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put them there."""
        torch.set_rng_state(state["[global]"])
        if self._cuda:
            torch.cuda.set_rng_state(state["[cuda]"])
        self._rng.restore(state)


class Descent:
    """An optimiser and the schedule of its rate."""

    def __init__(self, optimizer: Optimizer, schedule: LRScheduler) -> None:
        self._optimizer, self._schedule = optimizer, schedule

    def state(self) -> dict[str, Any]:
        """Where they stand: what is of a parameter by its number, and what is of a group."""
        whole = self._optimizer.state_dict()
        of_parameters = {f"{number} {key}": v for number, own in whole["state"].items() for key, v in own.items()}
        groups = [{key: value for key, value in group.items() if key != "params"} for group in whole["param_groups"]]
        return of_parameters | {"groups": groups} | {key: getattr(self._schedule, key) for key in _SCHEDULE}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put them there.

        Raises:
            ValueError: they are not of this optimiser and schedule.
        """
        fresh = self.state()
        if wrong := [key for key in ("groups", *_SCHEDULE) if not _alike(state[key], fresh[key])]:
            raise ValueError(f"{wrong[0]} is of another form")
        here = self._optimizer.state_dict()["param_groups"]
        of_parameters: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name[0].isdigit():
                number, key = name.split(" ", 1)
                of_parameters.setdefault(int(number), {})[key] = value
        groups = [now | then | {"params": now["params"]} for now, then in zip(here, state["groups"], strict=True)]
        self._optimizer.load_state_dict({"state": of_parameters, "param_groups": groups})
        for parameter, own in self._optimizer.state.items():
            if other := [key for key, v in own.items() if v.ndim and v.shape != parameter.shape]:
                raise ValueError(f"{other[0]} is not of the shape of its parameter")
            # fused updates want all of a parameter to lie alike
            own |= {k: torch.empty_like(parameter).copy_(v) for k, v in own.items() if v.shape == parameter.shape}
        self._schedule.load_state_dict({key: state[key] for key in _SCHEDULE})


def _alike(one: Any, other: Any) -> bool:
    """Whether a plain value as JSON has it is of the form of another; other versions have more keys, or fewer."""
    if isinstance(other, Mapping):
        return isinstance(one, Mapping) and all(_alike(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(other, list | tuple):
        return isinstance(one, list | tuple) and len(one) == len(other) and all(map(_alike, one, other))
    if type(other) in (int, float):
        return type(one) in (int, float) and isfinite(one)
    return None in (one, other) or type(one) is type(other)
