"""The trials of a search: the classes of a recipe's first step, learned incrementally, each time by another policy.

RMM learns its policy on such pseudo tasks, made from what the first step brings, before the run that it is for. Half of
the classes come first, the rest in steps of half the recipe's increment. The reward is the average incremental accuracy
on held-out training images; the test set is not read. A trial is a run like any other, of the recipe's seed.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw import UserError, did_you_mean
from lwmfw_plugins.rates.rmm._policy import Policy
from lwmfw_plugins.rates.rmm._search import Tenths, best_of, policy_of

if TYPE_CHECKING:
    from lwmfw import Results


class Device(StrEnum):
    """Where trials are trained."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def resolved_recipe(arguments: Sequence[str]) -> str:
    """A recipe with every default written out, as `lwmfw show` prints it for these arguments.

    Raises:
        UserError: what it says of a wrong one.
    """
    command = [sys.executable, "-P", "-m", "lwmfw", "show", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - arguments, no shell
    if done.returncode:
        raise UserError(done.stderr.strip() or f"lwmfw show: exits {done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class Task:
    """What all trials have in common.

    Attributes:
        steps: how many come after the first.
        readout: whose accuracy is the reward.
        settings: of a run, dotted key -> value.
    """

    steps: int
    readout: str
    settings: dict[str, object]


def task_of(recipe: Mapping[str, Any], *, epochs: int = 0, readout: str = "") -> Task:
    """The pseudo task that a recipe's first step is enough for.

    Args:
        recipe: its tables, every default written out.
        epochs: of each step; 0: a quarter of the recipe's. Those of [training.first] and [[phases]] are cut likewise.
        readout: by its name in the recipe; empty: the first.

    Raises:
        UserError: the recipe has no memory or one that is not counted in exemplars, no later steps, a first step that
            cannot be divided, or no such read-out.
    """
    if "memory" not in recipe:
        raise UserError("memory: there is none, so nothing to share out; add [memory]")
    budget = recipe["memory"]["budget"]
    if budget == "all":
        raise UserError('memory.budget: "all" leaves nothing to share out; state it in exemplars')
    if not budget.endswith((" exemplars", " per class")):
        raise UserError(f'memory.budget: "{budget}" is a limit that rmm would exceed; state it in exemplars')
    known, increment = recipe["scenario"]["first"], recipe["scenario"]["increment"]
    later = increment[0] if isinstance(increment, list) and increment else increment
    if not later:
        raise UserError("scenario.increment: no step comes after the first, so nothing is given up; say how many")
    if known < 2:
        raise UserError(f"scenario.first: {known} classes cannot be learned in steps; set it to 2 or more")
    names = [each["as"] for each in recipe["readouts"]]
    if readout and readout not in names:
        hint = did_you_mean(readout, names) or f"; choose of {', '.join(names)}"
        raise UserError(f"--readout {readout}: no such read-out in the recipe{hint}")
    half = known // 2
    size = min(max(1, later // 2), half)
    steps = half // size
    training = recipe["training"]
    shorter = epochs or max(1, training["epochs"] // 4)
    cut = Fraction(shorter, max(1, training["epochs"]))
    settings: dict[str, object] = {
        "scenario.classes": known - half + steps * size,
        "scenario.first": known - half,
        "scenario.increment": size,
        "training.epochs": shorter,
        "training.first": _shortened(training["first"], cut),
        "phases": [_shortened(phase, cut) for phase in recipe["phases"]],
        "evaluation.validation": recipe["evaluation"]["validation"] or 0.1,
        "observers": [],
    }
    return Task(steps, readout or names[0], settings)


def _shortened(table: Mapping[str, Any], cut: Fraction) -> dict[str, Any]:
    epochs = table.get("epochs")
    return {**table} | ({"epochs": math.ceil(epochs * cut)} if isinstance(epochs, int) else {})


def rate_table(policy: Policy) -> dict[str, object]:
    """The policy as the table `memory.rate` of a recipe."""
    return {"use": "rmm", "policy": "listed", "give_up": [*policy.give_up], "favour": [*policy.favour]}


def rate_line(policy: Policy) -> str:
    """The same as a line of [memory]."""
    keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in rate_table(policy).items())
    return f"rate = {{ {keys} }}"


@dataclass
class Trials:
    """Makes trials, in folders of their own, and records them in policy.json.

    Attributes:
        recipe: the resolved recipe's file.
        task: what they have in common.
        out: the folder of all.
        device: where they are trained.
        tell: is given a line about each.
        tried: policies and rewards so far.
    """

    recipe: Path
    task: Task
    out: Path
    device: Device
    tell: Callable[[str], None]
    tried: dict[Tenths, float] = field(default_factory=dict)

    def reward(self, tenths: Tenths) -> float:
        """Train and measure one policy."""
        started, policy, number = time.perf_counter(), policy_of(tenths), len(self.tried) + 1
        settings = self.task.settings | {"memory.rate": rate_table(policy)}
        measured = self._learned(settings, self._folder(number)).average_incremental_accuracy[self.task.readout]
        if measured is None:
            raise UserError("evaluation.validation: holds out no image of a class; raise it")
        self.tried[tenths] = measured
        self._record()
        listed = "  ".join(f"{name} {_spaced(values)}" for name, values in policy._asdict().items())
        seconds = time.perf_counter() - started
        self.tell(f"trial {number:<3}  {listed}  {self.task.readout} {measured:.4f}  {seconds:.1f} s")
        return measured

    def _learned(self, settings: Mapping[str, object], folder: Path) -> Results:
        from lwmfw import run

        first = self._folder(1) if self.tried else None  # no policy acts before the second step
        try:
            return run(self.recipe, settings, out=folder, device=self.device.value, resume="never", from_run=first)
        except UserError:
            if first is None:
                self.recipe.unlink()  # nothing has begun: the folder is free for the command that is put right
                raise
        # a component that gathers its state while the first step is trained has it trained again
        return run(self.recipe, settings, out=folder, device=self.device.value, resume="never")

    def _folder(self, number: int) -> Path:
        return self.out / "trials" / f"{number:02}"

    def _record(self) -> None:
        trials = [policy_of(each)._asdict() | {"reward": reward} for each, reward in self.tried.items()]
        best = rate_table(policy_of(best_of(self.tried)))
        content = {"readout": self.task.readout, "settings": self.task.settings, "trials": trials, "rate": best}
        written = self.out / "policy.json.new"
        written.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        written.replace(self.out / "policy.json")


def _spaced(values: Sequence[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)


def opened(out: Path, recipe: str) -> Path:
    """A new folder for a search, and the resolved recipe in it; returns the recipe's file.

    Raises:
        UserError: it has something in it, or cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(f"{out}: not empty; choose another --out")
        (out / "recipe.toml").write_text(recipe, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be used: {error.strerror}; choose another --out") from error
    return out / "recipe.toml"


def tables_of(recipe: str) -> dict[str, Any]:
    """A resolved recipe's tables."""
    return tomllib.loads(recipe)
