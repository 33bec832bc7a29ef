"""Where a run is inside a step: kept now and then, so that a run that is killed there goes on there, to the same bits.

Up to its first phase a step is played again: all that happens there follows from the checkpoint before it. Then come
stages - phases, read-outs, memory, evaluation - and a run goes on from the beginning of one, or from an update of a
phase. A phase is begun again too, with what there was at its beginning, because a component may change the network
there; only then everything is put where it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lwmfw.engine.kept import Descent, Generators, facts, stateful
from lwmfw.engine.terms import TermMeans
from lwmfw.errors import LOWER, CheckpointRefused, NotFinite, UserError, quoted, shown
from lwmfw.model.growing import check_state
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.stopping import STOP

if TYPE_CHECKING:
    from lwmfw.engine.run import Run

READOUTS, MEMORY, EVALUATION = 10_001, 10_002, 10_003
"""The stages behind a step's phases, which are counted from 0."""
_NOWHERE = -1
"""The stage of a step that has not come to its first phase, or is over."""
_BEFORE = "before training"
_PARTS = {READOUTS: "after training", MEMORY: "memory", EVALUATION: "evaluation"}
"""What the time of stages that are no phases stands under."""

LOOK = 10.0
"""Seconds after which terms and weights are looked at: one that is not finite ends the run no later."""

_BEGINNING = "[beginning]"


@dataclass(frozen=True)
class SaveEvery:
    """How often the inside of a step is kept.

    Attributes:
        seconds: after so long, and at the beginning of a stage after a tenth of it.
        updates: after so many updates too; 0: time alone decides.
    """

    seconds: float = 600.0
    updates: int = 0


USUAL = SaveEvery()
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) *(s|min|h|updates?)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def parse_save_every(text: str) -> SaveEvery:
    """Read "10 min" (s, min, h), which is at least a second, or "500 updates".

    Raises:
        UserError: anything else.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    amount, unit = (float(match[1]), match[2]) if match else (0.0, "")
    if unit in _SECONDS and amount * _SECONDS[unit] >= 1:
        return SaveEvery(amount * _SECONDS[unit])
    if unit.startswith("update") and amount >= 1 and amount.is_integer():
        return SaveEvery(updates=int(amount))
    raise UserError(
        f'--save-every {quoted(text)}: should be a time of a second or more, or updates; write "10 min" (s, min, h) or '
        '"500 updates"'
    )


_Count = Annotated[int, Field(ge=0, le=10**12)]


class Place(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """Where a run was inside a step, as a checkpoint states it.

    Attributes:
        stage: at which; `updates` of it were made.
        epochs: that the step had been trained.
        seconds: that it had taken; `taken`, where another run has trained it; `parts`, by part.
        logged: bytes of metrics.jsonl.
        serial: how many places had been kept.
        epoch, batch, rate: of the epoch that was under way, as in a cursor.
    """

    stage: int = Field(ge=0, le=EVALUATION)
    updates: _Count
    epochs: _Count
    taken: float | None = Field(ge=0)
    seconds: float = Field(ge=0)
    parts: dict[str, Annotated[float, Field(ge=0)]] = {}
    logged: _Count
    serial: _Count
    epoch: int = Field(1, ge=1, le=10**12)
    batch: _Count = 0
    rate: float = 0.0


def place_of(kept: Checkpoint) -> Place:
    """Where a run was when its place was kept.

    Raises:
        CheckpointRefused: the checkpoint, whose digests fit, has no such place.
    """
    try:
        return Place.model_validate(kept.facts.get("progress"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = shown(".".join(["progress", *map(str, first["loc"])]))
        raise _refusal(kept, f"{key} is {quoted(first['input'])}, which says no place") from error


def _refusal(kept: Checkpoint, fault: str) -> CheckpointRefused:
    return CheckpointRefused(f"{kept.path}: {fault}; {checkpoint.remedy(kept.path)}")


@dataclass
class Cursor:
    """An epoch that is under way.

    Attributes:
        epoch: its number.
        batch: how many of its batches have been learned.
        rate: the learning rate at its beginning.
        means: of its terms so far.
    """

    epoch: int
    batch: int
    rate: float
    means: TermMeans


class Progress:
    """Where a run is inside a step, and what it goes on from.

    Attributes:
        epochs: that the step has been trained.
        part: of the step that is under way, as part_seconds in results name it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._resumed: tuple[Checkpoint, Place] | None = None
        self._stage, self._updates, self._pauses, self._serial = _NOWHERE, 0, 0, 0
        self._beginning: Checkpoint | None = None
        self._phase: tuple[Descent, Cursor] | None = None
        self._kept = self._looked = self._began = time.monotonic()
        self._taken: float | None = None
        self._times: dict[str, float] = {}
        self.part, self._part_began = _BEFORE, self._began
        self.epochs = 0

    def go_on_from(self, kept: Checkpoint) -> None:
        """Have the next step go on from inside; raises as `place_of`."""
        self._resumed = kept, place_of(kept)
        self._serial = self._resumed[1].serial

    def begin_step(self) -> None:
        """A step begins, or is played again."""
        self.end_step()
        self._began = self._kept = self._part_began = time.monotonic()
        self._taken, self.epochs, self.part, self._times = None, 0, _BEFORE, {}
        if self._resumed:
            at = self._resumed[1]
            self._taken, self.epochs, self._times = at.taken, at.epochs, dict(at.parts)
            self._began -= at.seconds

    def end_step(self) -> None:
        """A step is over; nothing of it is kept any more."""
        self._stage, self._beginning, self._phase = _NOWHERE, None, None

    def take_over(self, seconds: float, epochs: int) -> None:
        """Another run has trained the step, in so long."""
        self._taken, self.epochs = seconds, epochs

    @property
    def seconds(self) -> float:
        """What the step has taken, or its training another run, without the time in which nothing ran."""
        return time.monotonic() - self._began if self._taken is None else self._taken

    @property
    def parts(self) -> dict[str, float]:
        """What the step has taken here, by part; the time in which a step is played again counts to what is played."""
        passed = time.monotonic() - self._part_began
        return self._times | {self.part: self._times.get(self.part, 0.0) + passed}

    def enters(self, stage: int) -> bool:
        """Whether a stage has to be gone through: not where a run goes on from behind it.

        Raises:
            CheckpointRefused: the stage that it goes on from is none of the step's.
        """
        self._times, self._part_began = self.parts, time.monotonic()
        self.part = _PARTS.get(stage) or self._run.position.phase
        self._stage, self._updates, self._pauses, self._phase = stage, 0, 0, None
        if self._resumed is None:
            self._beginning = self._now() if self._played_again(stage) else None
            every, passed = self._run.save_every, time.monotonic() - self._kept
            taken = stage == READOUTS and self._taken is not None  # by whom is known here alone
            if STOP.wished or every.updates or taken or passed > every.seconds / 10:
                self._keep()
            STOP.obey()
            return True
        kept, at = self._resumed
        if stage > at.stage or (at.updates and stage >= READOUTS):
            raise _refusal(kept, f"stage {at.stage} with {at.updates} updates is no place of this step")
        if stage == at.stage:
            begun = _beginning_in(kept) if at.updates else kept
            if begun:
                self._put(begun)
            self._beginning = begun if self._played_again(stage) else None
            if not at.updates:
                self._resumed = None
        return stage == at.stage

    def _played_again(self, stage: int) -> bool:
        """Whether a place inside a stage needs what there was at its beginning: a phase but the first, which begins as
        it is played again, or long work of components."""
        pauses = any(part.trait("pauses") for part in self._run.assembly.components.values())
        return 0 < stage < READOUTS or (stage >= READOUTS and pauses)

    def pause(self, name: str) -> None:
        """A component is between two pieces of long work; before the end of the phases that is no place to be kept.

        Its place is the beginning of the stage with the component's state of now, and those of others that have paused
        in it: a run that goes on there plays the stage again, and they go on from their states.
        """
        if self._stage < READOUTS:
            return
        self._pauses += 1
        if self._beginning and self._due(self._pauses):
            self.look()
            self._beginning = checkpoint.with_state_of(name, self._beginning, self._now())
            self._write(self._beginning)
        STOP.obey()

    def _due(self, count: int) -> bool:
        """Whether it is time to keep the place, after so many updates or pieces of work in this stage."""
        every = self._run.save_every
        counted = every.updates and count % every.updates == 0
        return bool(counted or STOP.wished or time.monotonic() - self._kept > every.seconds)

    def in_phase(self, optimizer: Optimizer, schedule: LRScheduler, epochs: int, batches: int) -> Cursor:
        """The first epoch of a phase whose optimiser is made, or the one in which it was left.

        Raises:
            CheckpointRefused: that is none of so many epochs of so many batches.
        """
        means, descent = TermMeans(self._run.device), Descent(optimizer, schedule)
        cursor = Cursor(1, 0, float(schedule.get_last_lr()[0]), means)
        if self._resumed:
            kept, at = self._resumed
            if not (at.epoch <= epochs and at.batch <= batches and at.updates == (at.epoch - 1) * batches + at.batch):
                said = f"epoch {at.epoch}, batch {at.batch} after {at.updates} updates"
                raise _refusal(kept, f"{said} is no place in {epochs} epochs of {batches} batches")
            cursor = Cursor(at.epoch, at.batch, at.rate, means)
            self._put(kept, {"[descent]": descent, "[terms]": cursor.means})
            self._updates, self._resumed = at.updates, None
        self._phase = descent, cursor
        return cursor

    def advance(self) -> None:
        """An update is made."""
        assert self._phase, "in a phase"  # noqa: S101
        self._updates += 1
        self._phase[1].batch += 1
        now = time.monotonic()
        if now - self._looked > LOOK:
            self.look()
        if self._due(self._updates):
            self._keep()
        STOP.obey()

    def next_epoch(self, rate: float) -> None:
        """An epoch is over."""
        assert self._phase, "in a phase"  # noqa: S101
        cursor = self._phase[1]
        cursor.epoch, cursor.batch, cursor.rate, cursor.means = cursor.epoch + 1, 0, rate, cursor.means.anew()
        self.epochs += 1

    def look(self) -> None:
        """See that terms and weights are finite.

        Raises:
            NotFinite: one is not.
            WrongAnswer: the model has a state that cannot be kept.
        """
        check_state(self._run.model)
        self._looked = time.monotonic()
        position = self._run.position
        if self._phase:
            self._phase[1].means.to_host(position)
        model = self._run.model
        # a network may hold infinite numbers of its own, as masks do; what BatchNorm learns is none of them
        statistics = [(k, v) for k, v in model.named_buffers() if k.endswith(("running_mean", "running_var"))]
        named = (*model.named_parameters(), *statistics)
        values = {k: v for k, v in named if v.is_floating_point() and v.numel() and v.layout == torch.strided}
        finite = torch.stack([v.isfinite().all() for v in values.values()]).tolist() if values else []
        for name, fine in zip(values, finite, strict=True):
            if not fine:
                remedy = ' or set training.precision = "fp32"' if model.bf16 else ""
                raise NotFinite(f"weights '{name}' are not finite; the run stopped {position}; {LOWER}{remedy}")

    def _keep(self) -> None:
        """Write down where the run is, at the beginning of a stage or behind an update."""
        if self._run.directory is None:
            return
        self.look()
        more, components = {}, {}
        if self._phase and self._updates:
            descent, cursor = self._phase
            more = {"[descent]": descent, "[terms]": cursor.means}
            components = _as_components(self._beginning) if self._beginning else {}
        now = self._now(more)
        self._write(replace(now, components=now.components | components))

    def _write(self, kept: Checkpoint) -> None:
        """Write down a place of the run, unless it writes nothing down."""
        directory = self._run.directory
        if directory is None:
            return
        directory.check_is_there()
        self._serial += 1
        times = {"seconds": self.seconds, "parts": self.parts}
        at = self._position() | times | {"logged": directory.logged(), "serial": self._serial}
        kept = replace(kept, facts=kept.facts | {"progress": at})
        checkpoint.save_inside(directory.checkpoints, kept, self._run.position.step, self._serial)
        self._kept = time.monotonic()

    def _position(self) -> dict[str, Any]:
        here = {"stage": self._stage, "updates": self._updates, "epochs": self.epochs, "taken": self._taken}
        if not self._phase:
            return here
        cursor = self._phase[1]
        return here | {"epoch": cursor.epoch, "batch": cursor.batch, "rate": cursor.rate}

    def _now(self, more: Mapping[str, Any] = {}) -> Checkpoint:
        """The run as it is, without the results of finished steps, which are kept already."""
        run = self._run
        return checkpoint.take(run.model, self._parts() | dict(more), replace(run.results, steps=[]), facts(run))

    def _parts(self) -> dict[str, Any]:
        return stateful(self._run) | {"[random]": Generators(self._run)}

    def _put(self, kept: Checkpoint, more: Mapping[str, Any] = {}) -> None:
        """Put the run where it was."""
        run = self._run
        there = {name.split(".")[1] for name in kept.model if name.startswith("extras.")}
        for name in [name for name, part in run.model.extras.items() if part.state_dict() and name not in there]:
            del run.model.extras[name]  # a component had taken it out since the step began
        checkpoint.restore(kept, run.model, self._parts() | dict(more))


def _as_components(kept: Checkpoint) -> dict[str, dict[str, Any]]:
    """A checkpoint as entries among the components of another."""
    return {_BEGINNING: dict(kept.model)} | {_BEGINNING + name: state for name, state in kept.components.items()}


def _beginning_in(kept: Checkpoint) -> Checkpoint | None:
    """The checkpoint that another has among its components; None: it has none."""
    if _BEGINNING not in kept.components:
        return None
    states = {n.removeprefix(_BEGINNING): s for n, s in kept.components.items() if n.startswith(_BEGINNING)}
    return replace(kept, model=states.pop(""), components=states)
