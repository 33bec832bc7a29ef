"""A run: what hooks are given as `run`, and what the loop is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from lwmfw.assembly.assemble import other_data
from lwmfw.assembly.calls import Position, Randomness
from lwmfw.assembly.parts import Assembly
from lwmfw.components import DataChoice
from lwmfw.data.images import DataSet, ImageSet
from lwmfw.data.loader import EpochShape, Loader
from lwmfw.engine.build import grow, new_model
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.progress import USUAL, Progress, SaveEvery
from lwmfw.errors import LOWER, NotFinite, UserError, one_line
from lwmfw.memory.store import Memory
from lwmfw.model.features import features_of
from lwmfw.model.growing import Model
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.places import places, weight_files
from lwmfw.recipe.scenario import Step
from lwmfw.recipe.tables import Recipe
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import RunDirectory
from lwmfw.record.reading import settings_of
from lwmfw.record.results import Results


@dataclass(frozen=True)
class ObjectiveTerm:
    """The classification loss as the loop computes it: `weight * loss(logits, labels)` over new or seen classes."""

    name: str
    over: Literal["new", "seen"]
    weight: float
    loss: Callable[[Tensor, Tensor], Tensor]


FOR_PLUGINS = (
    *("recipe", "steps", "data", "loader", "model", "device", "results", "memory", "directory", "known_steps"),
    *("position", "remaining_steps", "phases", "quota", "updates", "features", "fresh_model", "load_data", "pause"),
)
"""What a plug-in may ask of a run; other members can change without a word."""


@dataclass
class Run:
    """One run of one recipe, as hooks are given it and as the loop drives it.

    A plug-in may ask for what FOR_PLUGINS lists: the attributes down to `directory`, and the methods. The rest is the
    loop's. `prepare` makes a run, going_on.py lets it go on from what was kept.

    Attributes:
        recipe: as validated, defaults filled in.
        steps: all steps, finished or not.
        data: training and test images by class order, on the device; a hook's argument `data` is one set of images.
        loader: makes batches of them; has their mean, deviation and augmentation.
        model: the model being trained; grows at every step.
        device: where it is trained.
        results: of the finished steps.
        memory: its exemplars; None: the recipe has no [memory].
        directory: where it is recorded, or None: `write(name, content)` leaves a file there, `folder(name)` is a place
            for a library that writes by itself, `tables` and `epochs()` are what is recorded so far.
        assembly: its components and hooks.
        objective: the classification loss.
        rng: gives every component its generator.
        origin: what it goes on from, where that is no checkpoint of its directory.
        known_steps: how many steps the finished run has that it goes on from.
        first_step: a first step that another run has trained.
        until: the step that it ends with, by its number; None: the last one.
        save_every: how often the inside of a step is kept.
        falls_back: whether it goes on from an earlier checkpoint where the last one is damaged.
        allow_drift: in what it may go on otherwise than it was computed, as drift.py has it.
    """

    recipe: Recipe
    assembly: Assembly
    steps: list[Step]
    data: DataSet
    loader: Loader
    objective: ObjectiveTerm
    model: Model
    device: torch.device
    results: Results
    rng: Randomness
    memory: Memory | None = None
    directory: RunDirectory | None = None
    origin: Checkpoint | None = None
    known_steps: int = 0
    first_step: FirstStep | None = None
    until: int | None = None
    save_every: SaveEvery = USUAL
    falls_back: bool = False
    allow_drift: frozenset[str] = frozenset()
    _seen: dict[tuple[int, int, bool], tuple[Any, Tensor]] | None = None

    @property
    def position(self) -> Position:
        """Where the run is."""
        return self.assembly.position

    @cached_property
    def progress(self) -> Progress:
        """Where it is inside a step."""
        return Progress(self)

    @property
    def arithmetic(self) -> str:
        """Precision and kind of device; with others the bits differ."""
        return f"{'bf16' if self.model.bf16 else 'fp32'} on {self.device.type}"

    @cached_property
    def settings(self) -> dict[str, str]:
        """The seed, and what decides the numbers of the recipe, wherever files lie."""
        resolved = self.assembly.resolved
        settings, apart = settings_of(resolved.tables(), self.results), {*places(resolved), "plugins"}
        return {"seed": str(self.recipe.seed)} | {k: v for k, v in settings.items() if k not in apart}

    @property
    def remaining_steps(self) -> list[Step]:
        """The steps that are to come."""
        return self.steps[len(self.results.steps) : self.until]

    @property
    def replay(self) -> float:
        """The share of exemplars in every batch; 0: as chance has it."""
        return self.recipe.memory.replay if self.recipe.memory else 0.0

    def quota(self, step: Step, cost: float, rng: Randomness | None = None) -> dict[int, int]:
        """Class -> how many exemplars it may have after a step, as the rate says."""
        assert self.memory is not None, "asked of a run with [memory]"  # noqa: S101
        quota: dict[int, int] = self.assembly.hook.allocate_memory(
            run=self, step=step, budget=self.memory.spendable, classes=step.seen_classes, cost=cost, rng=rng or self.rng
        )
        return quota

    def phases(self, step: Step) -> list[Phase]:
        """All phases of a step, the main one first."""
        return self.assembly.phases(step)

    def planned_exemplars(self, after: int) -> int:
        """How many exemplars a step, by its number, will keep; their mean size is that of the codec as it is set up."""
        if self.memory is None or after == 0:
            return 0
        available = torch.bincount(self.data.train.labels).tolist()
        planning = Randomness(self.recipe.seed, Position())  # a plan draws nothing that the run would draw
        quota = self.quota(self.steps[after - 1], self._planned_cost, planning)
        return sum(min(count, available[label]) for label, count in quota.items())

    @cached_property
    def _planned_cost(self) -> float:
        # where a run begins, the memory is empty; behind another's steps it is not
        return self.memory.cost(self.memory.join(self.data.train)) if self.memory else 0.0

    def planned_shape(self, step: Step, phase: Phase) -> EpochShape:
        """An epoch of a phase, as far as it is known before the step."""
        held = self.planned_exemplars(after=step.index - 1)
        if phase.balanced:
            return EpochShape(self.planned_exemplars(after=step.index), held, phase.batch_size)
        new = len(self.data.train.of_classes(step.new_classes))
        return EpochShape(new + held, held, phase.batch_size, self.replay)

    def updates(self, step: Step, phase: Phase | None = None) -> int:
        """Optimiser updates that a step, or one of its phases, will take, as far as it is known before it."""
        phases = [phase] if phase else self.phases(step)
        return sum(phase.epochs * self.planned_shape(step, phase).batches for phase in phases)

    def features(self, images: ImageSet, *, mirrored: bool = False, model: Model | None = None) -> Tensor:
        """Features of images, (N, D), float32, in evaluation mode and in the order in which the images are stored.

        Args:
            images: N of them.
            mirrored: whether they are mirrored left to right.
            model: whose features; by default those of the run's own model.
        """
        model = model or self.model
        key, seen = (id(images), id(model), mirrored), {} if self._seen is None else self._seen
        if key not in seen:
            batches, size = self.loader.evaluation_batches(images), self.loader.evaluation_size(images)
            found = features_of(model, batches, size, mirrored=mirrored)
            self._refuse_not_finite(int((~found.isfinite()).any(1).sum()), len(found))
            seen[key] = (images, model), found  # they are kept, or another could get their id
        return seen[key][1]

    def _refuse_not_finite(self, odd: int, count: int) -> None:
        if odd:
            raise NotFinite(
                f"features of {odd} of {count} images are not finite; the run stopped {self.position}; {LOWER}"
            )

    @contextmanager
    def sharing_features(self) -> Iterator[None]:
        """While no weight changes, the features of one set of images are computed once, whoever asks for them."""
        self._seen = {}
        try:
            yield
        finally:
            self._seen = None

    def pause(self, name: str) -> None:
        """Say, between pieces of long work in a hook, that the run can be left here.

        If it is time, or somebody wishes to stop, what the component's `state` says now is kept. There are three stages
        behind the phases: `after_training`; `before_memory`, `allocate_memory` and `select_memory`; the evaluation and
        `after_step`. A run that goes on here plays the stage again from its beginning - all its hooks, with model,
        memory and random numbers as they were there - but gives this component its state of now: it goes on from that,
        with the random numbers that it finds in it, and a read-out puts what it has learned in its place behind its
        last piece. Before the end of the phases, where a selection for balanced images may be asked for, nothing
        happens: there a run is left between updates.

        Args:
            name: of the component, as hooks are offered it.

        Raises:
            ValueError: it does not say `pauses = True`.
        """
        part = self.assembly.components.get(name)
        if part is None or not part.trait("pauses"):
            raise ValueError(f"run.pause: {name!r} is no component that says pauses; set pauses = True")
        self.progress.pause(name)

    def load_data(self, choice: DataChoice) -> DataSet:
        """A data set that an option of a component names: as it is loaded, on the CPU, labels as it has them.

        Raises:
            UserError: it is missing.
        """
        try:
            data: DataSet = other_data(choice, self.assembly).method("load")()
        except UserError as error:
            place = self.assembly.resolved.address_of(choice)
            raise UserError(re.sub(r"\bdata\.(\w)", rf"{place}.\1", f"{place}: {one_line(error)}")) from error
        return data

    def fresh_model(self, rng: Generator) -> Model:
        """An untrained model with as many classes as the run's; torch's global generator is left alone."""
        for key, file in weight_files(self.assembly.resolved).items():
            if key.startswith("backbone.") and not file.is_file():  # a run that goes on may have done without
                raise UserError(f"{key}: {file} is gone, and an untrained model begins with it; put it back")
        images, devices = self.data.train, [self.device] if self.device.type == "cuda" else []
        draw = int(torch.randint(1, 2**62, (), generator=rng))
        with torch.random.fork_rng(devices=devices):
            model = new_model(self.assembly, images.channels, images.size, self.device, draw)
            for step in self.steps:
                if step.seen_classes.stop <= self.model.classes:
                    grow(self.assembly, model, step)
        return model
