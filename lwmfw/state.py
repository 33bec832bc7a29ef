"""The state of a run: what hooks are given as `run`, and what a checkpoint keeps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, nn

from lwmfw import checkpoint
from lwmfw.assemble import Assembly, placed
from lwmfw.budget import parse_budget
from lwmfw.checkpoint import Checkpoint
from lwmfw.components import Codec, ObjectiveOptions
from lwmfw.data import EpochShape, Loader, arrange
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.features import features_of
from lwmfw.first_step import FirstStep
from lwmfw.memory import Memory
from lwmfw.metrics import Results
from lwmfw.model import Model, build_model, frozen_copy
from lwmfw.position import Position
from lwmfw.recipe import Recipe, Scenario
from lwmfw.record import RunDirectory
from lwmfw.rng import Randomness, derive_seed, generator
from lwmfw.scenario import Orders, Step, labels_of, stated_order, steps_of, used_classes
from lwmfw.types import DataSet, Features, ImageSet, Phase

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ObjectiveTerm:
    """The classification loss as the loop computes it: `weight * loss(logits, labels)` over new or seen classes."""

    name: str
    over: Literal["new", "seen"]
    weight: float
    loss: Callable[[Tensor, Tensor], Tensor]


@dataclass
class Run:
    """One run of one recipe.

    Attributes:
        recipe: as validated, defaults filled in.
        assembly: its components and hooks.
        steps: all steps, finished or not.
        data: images by class order, on the device.
        loader: makes batches of them.
        objective: the classification loss.
        model: the model being trained; grows at every step.
        device: where it is trained.
        results: of the finished steps.
        rng: gives every component its generator.
        memory: its exemplars; None: the recipe has no [memory].
        directory: where it is recorded; None: nowhere.
        origin: what it goes on from, where that is no checkpoint of its directory.
        first_step: a first step that another run has trained.
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
    first_step: FirstStep | None = None

    @property
    def position(self) -> Position:
        """Where the run is."""
        return self.assembly.position

    @property
    def arithmetic(self) -> str:
        """Precision and kind of device; with others the bits differ."""
        return f"{'bf16' if self.model.bf16 else 'fp32'} on {self.device.type}"

    @property
    def remaining_steps(self) -> list[Step]:
        """The steps that are not finished."""
        return self.steps[len(self.results.steps) :]

    def phase(self, step: Step) -> Phase:
        """The main phase of a step."""
        settings = self.recipe.training.settings(step.index)
        return Phase("main", **settings.model_dump())

    @property
    def replay(self) -> float:
        """The share of exemplars in every batch; 0: as chance has it."""
        return self.recipe.memory.replay if self.recipe.memory else 0.0

    def training_images(self, step: Step) -> ImageSet:
        """The new classes' training images, behind the exemplars."""
        new = self.data.train.of_classes(step.new_classes)
        return self.memory.join(new) if self.memory else new

    def quota(self, step: Step, cost: float, rng: Randomness | None = None) -> dict[int, int]:
        """Class -> how many exemplars it may have after a step, as the rate says."""
        assert self.memory is not None, "asked of a run with [memory]"  # noqa: S101
        quota: dict[int, int] = self.assembly.hook.allocate_memory(
            run=self, step=step, budget=self.memory.spendable, classes=step.seen_classes, cost=cost, rng=rng or self.rng
        )
        return quota

    def phases(self, step: Step) -> list[Phase]:
        """All phases of a step, the main one first."""
        more = self.assembly.hook.plan_phases(run=self, step=step, rng=self.rng)
        phases = [self.phase(step), *itertools.chain.from_iterable(more)]
        names = [phase.name for phase in phases]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"phases: step {step.index} has two phases named '{twice[0]}'; leave one out")
        return phases

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
        return self.memory.cost(self.data.train) if self.memory else 0.0

    def planned_shape(self, step: Step, phase: Phase) -> EpochShape:
        """An epoch of a phase, as far as it is known before the step."""
        held = self.planned_exemplars(after=step.index - 1)
        if phase.balanced:
            return EpochShape(self.planned_exemplars(after=step.index), held, phase.batch_size)
        new = len(self.data.train.of_classes(step.new_classes))
        return EpochShape(new + held, held, phase.batch_size, self.replay)

    def updates(self, step: Step) -> int:
        """Optimiser updates that a step will take, as far as it is known before it."""
        return sum(phase.epochs * self.planned_shape(step, phase).batches for phase in self.phases(step))

    def features(self, images: ImageSet, *, mirrored: bool = False) -> Tensor:
        """The model's features of images, (N, D), float32, in evaluation mode; mirrored left to right if wanted."""
        return features_of(self.model, self.loader.evaluation_batches(images), mirrored=mirrored)

    def fresh_model(self, rng: Generator) -> Model:
        """An untrained model with as many classes as the run's; torch's global generator is left alone."""
        images, devices = self.data.train, [self.device] if self.device.type == "cuda" else []
        draw = int(torch.randint(1, 2**62, (), generator=rng))
        with torch.random.fork_rng(devices=devices):
            model = new_model(self.assembly, images.channels, images.size, self.device, draw)
            model.grow(self.model.classes)
        return model.to(self.device)

    def seed_global(self, step: Step) -> None:
        """Make what draws from torch's global generator (initial weights, dropout) a function of seed and step."""
        torch.manual_seed(derive_seed(self.recipe.seed, "global", step.index))

    @property
    def stateful(self) -> dict[str, Any]:
        """What a checkpoint keeps besides model and results, by name; no component is named with brackets."""
        return self.assembly.components | ({"[memory]": self.memory} if self.memory else {})

    def go_on(self) -> None:
        """Take up the origin or the newest checkpoint, if there is one, and drop what was logged after it.

        Raises:
            CheckpointRefused: it is damaged, does not fit the recipe, or was computed in another way.
        """
        kept = checkpoint.load(self.directory.checkpoints) if self.directory else self.origin
        if kept:
            self._restore(kept)
        if self.directory:
            self.directory.forget_epochs_after(len(self.results.steps))

    def share_first_step(self, first: FirstStep) -> None:
        """Have the first step taken from another run.

        Raises:
            UserError: it was computed in another way.
        """
        computed = first.kept.facts["arithmetic"]
        if computed != self.arithmetic:
            raise UserError(
                f"{first.kept.path}: was computed in {computed}, here it would go on in {self.arithmetic}; "
                "leave --from out, or set training.precision and --device alike"
            )
        checkpoint.set_threads(first.kept.facts["threads"])
        self.first_step = first

    def take_first_step(self, first: FirstStep) -> None:
        """The model as another run has trained it in its first step."""
        checkpoint.restore(first.kept, self.model, {})
        # where training would have ended: what comes next draws the same random numbers
        self.position.phase = self.phases(self.steps[0])[-1].name
        self.results.first_step = first.record

    def _restore(self, kept: Checkpoint) -> None:
        if kept.facts["arithmetic"] != self.arithmetic:
            raise CheckpointRefused(
                f"{kept.path}: was computed in {kept.facts['arithmetic']}, here it would go on in {self.arithmetic}; "
                "resume where it was started, or start anew"
            )
        checkpoint.set_threads(kept.facts["threads"])
        self.results = kept.results
        for step in self.steps[: len(kept.results.steps)]:
            self.model.grow(len(step.new_classes))
        self.model.to(self.device)
        checkpoint.restore(kept, self.model, self.stateful)

    def save(self) -> None:
        """Record the finished steps: results first, so that they are never behind the checkpoint.

        Raises:
            RunFailed: a component's state, or what an observer added to the results, is not of plain values.
        """
        checkpoint.check_plain("result.extra", self.results.steps[-1].extra, "add numbers, strings, lists and dicts")
        self.results.complete = not self.remaining_steps
        if self.directory is None:
            return
        self.directory.write_results(self.results)
        checkpoint.save(self.directory.checkpoints, self.snapshot())

    def snapshot(self) -> Checkpoint:
        """The finished steps as a checkpoint in memory."""
        facts = {
            "threads": torch.get_num_threads(),
            "arithmetic": self.arithmetic,
            "channels": self.data.train.channels,
            "size": self.data.train.size,
        }
        return checkpoint.take(self.model, self.stateful, self.results, facts)

    def old_model(self) -> Model | None:
        """The frozen copy that the next step needs, if any component needs it."""
        needed = self.assembly.needs_old and self.model.classes and self.remaining_steps
        return frozen_copy(self.model) if needed else None


def prepare(assembly: Assembly, device_name: DeviceName = "auto") -> Run:
    """Build everything a run needs besides its components: data in class order, an empty model.

    Raises:
        UserError: missing data, a scenario the data cannot fill, no such device.
    """
    recipe = assembly.resolved.recipe
    device = choose_device(device_name)
    loaded: DataSet = assembly.method("data", "load")()
    try:
        order = class_order(recipe.scenario, loaded.class_names, assembly.orders, recipe.seed)
        steps = steps_of(recipe.scenario, len(order))
    except UserError as error:
        raise UserError(placed(error, assembly.resolved.source)) from error
    data = arrange(loaded, order, recipe.evaluation.validation, recipe.seed)
    data = DataSet(**vars(data) | {"train": data.train.to(device), "test": data.test.to(device)})
    providers = {name: chosen.component.provider.record for name, chosen in assembly.chosen.items()}
    names = [loaded.class_names[label] for label in order]
    run = Run(
        recipe=recipe,
        assembly=assembly,
        steps=steps,
        data=data,
        loader=Loader.of(data, device),
        objective=_objective(assembly),
        model=new_model(assembly, data.train.channels, data.train.size, device),
        device=device,
        results=Results(recipe.name, recipe.seed, order, names, providers),
        rng=Randomness(recipe.seed, assembly.position),
        memory=_memory(assembly, data.train, len(order)),
    )
    for step in steps:
        run.phases(step)
    return run


def class_order(scenario: Scenario, names: Sequence[str], orders: Orders, seed: int) -> list[int]:
    """The labels of a data set in the order in which they are learned.

    Args:
        scenario: states the order and how many of its classes are used.
        names: of the data set's classes, by label.
        orders: those that the data set offers, by name.
        seed: decides `order = "seed"`.

    Raises:
        UserError: as `used_classes` and `labels_of`.
    """
    used = used_classes(scenario, len(names), orders)
    stated = stated_order(scenario, orders)
    if stated is None:
        stated = torch.randperm(len(names), generator=generator(seed, "order")).tolist()
    return labels_of(stated, names)[:used]


def new_model(assembly: Assembly, channels: int, size: int, device: torch.device, draw: int = 0) -> Model:
    """The model for images of a size before its first class; initial weights are a function of the seed and `draw`."""
    recipe = assembly.resolved.recipe
    torch.manual_seed(derive_seed(recipe.seed, "model", *[draw] * bool(draw)))
    backbone: nn.Module = assembly.method("backbone", "build")(channels)
    features, stages = _probe(backbone, channels, size, assembly.provider_of("backbone"))
    classifier: nn.Module = assembly.method("classifier", "build")(features)
    precision = recipe.training.precision
    bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    return build_model(backbone, classifier, device, bf16=bf16, stages=stages)


def _memory(assembly: Assembly, images: ImageSet, classes: int) -> Memory | None:
    table = assembly.resolved.recipe.memory
    if table is None:
        return None
    # through assembly.method an error names the codec and its provider
    codec = SimpleNamespace(**{name: assembly.method("codec", name) for name in Codec.required_methods})
    memory = Memory(parse_budget(table.budget), codec, images)
    total = memory.spendable.total(classes, memory.cost(images))
    if total is not None and total < classes:
        raise UserError(
            f"memory.budget: '{table.budget}' is less than an exemplar for each of {classes} classes; raise it"
        )
    return memory


def _objective(assembly: Assembly) -> ObjectiveTerm:
    name = assembly.name_of("objective")
    options = cast(ObjectiveOptions, assembly.chosen[name].options)
    return ObjectiveTerm(name, options.over, options.weight, assembly.method("objective", "loss"))


def _probe(backbone: nn.Module, channels: int, size: int, who: str) -> tuple[int, int]:
    """Width of the features and number of maps, found by one forward so that no backbone has to state them.

    Raises:
        UserError: the backbone cannot take such images, as one with large strides or of a fixed size.
    """
    training = backbone.training
    try:
        with torch.no_grad():
            body = cast(Features, backbone.eval()(torch.zeros(1, channels, size, size)))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{who} cannot take images of {channels}x{size}x{size} ({reason}); choose another backbone or image size"
        ) from error
    backbone.train(training)
    return body.features.shape[1], len(body.maps)


def choose_device(name: DeviceName) -> torch.device:
    """The device to train on, set up to compute the same bits every time.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    device = torch.device("cuda" if cuda and name != "cpu" else "cpu")
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively rather than by way of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def environment(run: Run) -> dict[str, object]:
    """Facts for env.json that only torch knows."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": name,
        "arithmetic": run.arithmetic,
        "threads": torch.get_num_threads(),
        "skipped_images": run.data.skipped,
    }
