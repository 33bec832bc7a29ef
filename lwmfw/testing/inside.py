"""What a component changes inside a step is in its state: a run that is left there goes on to the bits of another."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lwmfw.assembly.assemble import Built
from lwmfw.components import Component, Observer, Options, Provider
from lwmfw.errors import Interrupted, LwmfwError, UserError
from lwmfw.hookspecs import hookimpl
from lwmfw.recipe.scenario import Step
from lwmfw.recipe.text import merge
from lwmfw.stopping import STOP
from lwmfw.testing.tiny import TinyRun, tiny_run

ACTING = ("compute_penalty", "after_update", "after_epoch", "after_training", "before_memory")
"""Hooks inside a step: what they leave behind is not made again where a run goes on behind them."""

RECIPE: dict[str, Any] = {
    "data": {"train_per_class": 8, "test_per_class": 4},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "2 per class", "select": {"use": "random"}},
    "training": {"batch_size": 8, "epochs": 2},
}
"""What is merged into the tiny recipe: two updates an epoch at least, and exemplars."""

_PROVIDER = Provider("examined")

Place = tuple[int, str]
"""A step, and where in it."""


def check_inside(record: Component, options: Options, built: Built, recipe: Mapping[str, Any] = {}) -> None:
    """Hold a component that acts inside steps against the contract: what it changes there is in its state.

    Args:
        record: of the component, with its provider.
        options: its options.
        built: what was made of them.
        recipe: tables with which it can run, where the tiny recipe has not what it needs.
    """
    acting, pauses = [hook for hook in ACTING if hook in built.hooks], built.traits["pauses"]
    if not acting and not pauses:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            whole = _Examined(record, options, recipe, Path(folder) / "whole").to_its_end()
        except UserError as error:
            warnings.warn(f"{record.name} was not tried inside a step: {error}; give a `recipe` for it", stacklevel=3)
            return
        changed = whole.changed()
        places: dict[str, Place] = {}  # the first of each phase, of read-outs and of memory, and of pauses in each
        for step, where in changed:
            places.setdefault(where.split()[0], (step, where))
        if not places:
            return
        left = _Examined(record, options, recipe, Path(folder) / "left")
        try:
            left.to_its_end(list(places.values()))
            differs = not left.equals(whole)
        except LwmfwError as error:
            differs, told = True, f" ({error})"
        else:
            told = ""
    names = left.differing(whole) or sorted({name for names in changed.values() for name in names})
    acting += ["between pauses"] if pauses else []
    kept = "state() does not keep" if built.traits["state"] else "no state() keeps; define state() and restore()"
    assert not differs, (
        f"{type(built.instance).__name__} changes {', '.join(f'`{name}`' for name in names)} in {' or '.join(acting)}, "
        f"which {kept}: a run that is left inside a step goes on to other numbers{told}"
    )


@dataclass
class _Examined:
    """A run of a component that can be left and gone on with, and what the component's attributes were where."""

    record: Component
    options: Options
    recipe: Mapping[str, Any]
    folder: Path
    seen: dict[Place, dict[str, str]] = field(default_factory=dict)
    fresh: set[Place] = field(default_factory=set)
    made: list[Any] = field(default_factory=list)
    done: TinyRun | None = None

    def to_its_end(self, places: Sequence[Place] = ()) -> _Examined:
        """Run, left at each of some places."""
        self.folder.mkdir()
        for place in (*places, None):
            first = {"looks": True}
            watch = Observer("lwmfw-examines", partial(_Watch, self, place, first))
            try:
                self.done = tiny_run(self._tables(), self.folder, components=[self._watched(), watch])
                break
            except Interrupted:
                continue
        return self

    def _watched(self) -> Component:
        def made(options: Any) -> Any:
            self.made.append(self.record.factory(options))
            return self.made[-1]

        return replace(self.record, factory=made, provider=_PROVIDER)  # one of this name can be installed too

    def _tables(self) -> dict[str, Any]:
        """The recipe, with the component in the place of its kind."""
        record = self.record
        choice = {"use": f"{_PROVIDER.name}/{record.name}", **self.options.model_dump(exclude_none=True)}
        outer, _, inner = record.table.partition(".")
        own: Any = [choice] if record.listed else choice
        tables = merge(RECIPE, dict(self.recipe))
        tables[outer] = tables[outer] | {inner: own} if inner else own
        watching = [{"use": "lwmfw-examines"}]
        return tables | {"observers": [*(own if outer == "observers" else []), *watching]}

    def changed(self) -> dict[Place, list[str]]:
        """Where in a step attributes are others than at the place before, in the order of the run."""
        found = {}
        for before, now in itertools.pairwise(self.seen):
            names = [name for name, value in self.seen[now].items() if self.seen[before].get(name) != value]
            if names and before[0] == now[0]:
                found[now] = names
        return found

    def differing(self, whole: _Examined) -> list[str]:
        """The attributes that were others right after the run had gone on than in a run that was left alone."""
        names = [
            name
            for place in self.fresh & whole.seen.keys()
            for name, value in whole.seen[place].items()
            if self.seen[place].get(name) != value
        ]
        return sorted(set(names))

    def equals(self, whole: _Examined) -> bool:
        """Whether both came to the same bits: weights, measures, terms, exemplars, and the component's state."""
        return self._outcome() == whole._outcome()

    def _outcome(self) -> list[Any]:
        assert self.done, "the run has ended"
        steps = [vars(replace(step, train_seconds=0.0, part_seconds={})) for step in self.done.results.steps]
        state = self.made[-1].state() if hasattr(self.made[-1], "state") else {}
        memory = self.done.run.memory
        exemplars = [] if memory is None else [each.encoded for each in memory.exemplars]
        return [steps, self.done.terms, _print(self.done.run.model), exemplars, _print(state)]


class _Watch:
    """Notes what a component's attributes are, and has the run stop at a place."""

    def __init__(self, examined: _Examined, place: Place | None, first: dict[str, bool], options: Options) -> None:
        self._examined, self._place, self._first = examined, place, first

    @hookimpl
    def before_run(self, run: Any) -> None:
        self._run, pause = run, run.pause

        def noted(name: str) -> None:
            part = run.progress.part.replace(" ", "_")
            self._pauses[part] += 1
            self._note(run.steps[run.position.step - 1], f"{part}_pause {self._pauses[part]}")
            pause(name)

        run.pause = noted

    @hookimpl
    def before_step(self) -> None:
        self._pauses: Counter[str] = Counter()

    def _note(self, step: Step, where: str) -> None:
        examined = self._examined
        examined.seen[step.index, where] = {k: _print(v) for k, v in getattr(examined.made[-1], "__dict__", {}).items()}
        if self._first.pop("looks", False):
            examined.fresh.add((step.index, where))
        if (step.index, where) == self._place:
            STOP.wished = True

    @hookimpl
    def after_update(self, step: Step) -> None:
        at = self._run.position
        self._note(step, f"{at.phase} {at.epoch} {at.batch}")

    @hookimpl
    def after_training(self, step: Step) -> None:
        self._note(step, "after_training")

    @hookimpl
    def before_memory(self, step: Step) -> None:
        self._note(step, "before_memory")


def _print(value: Any, depth: int = 4) -> str:
    """A digest of a value; of what lwmfw made, and of what lies deep, its type alone."""
    match value:
        case torch.Tensor():
            content = value.detach().cpu().contiguous()
            raw = content.flatten().view(torch.uint8).numpy().tobytes()
            return f"{content.dtype} {tuple(content.shape)} {hashlib.sha256(raw).hexdigest()}"
        case torch.nn.Module():
            return _print(value.state_dict(), depth)
        case torch.Generator():
            return _print(value.get_state())
        case Mapping() if depth:
            return str([(str(key), _print(each, depth - 1)) for key, each in value.items()])
        case list() | tuple() if depth:
            return str([_print(each, depth - 1) for each in value])
        case None | bool() | int() | float() | str() | bytes() | set() | frozenset():
            return repr(value)
    own = getattr(value, "__dict__", None)
    if own and depth and not type(value).__module__.startswith("lwmfw."):
        return _print(own, depth - 1)
    return type(value).__name__
