"""Taking the first step of a run from another run that trained it in the same way.

The first step is often the longest, and methods differ in what comes after it. What is taken is the trained model:
exemplars, evaluation and whatever else follows training are computed anew, so that the result has the bits of a run
that trains its first step itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.calls import Attached
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.recipe.options import as_written
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.places import places
from lwmfw.recipe.scenario import steps_of
from lwmfw.recipe.text import placed
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.identity import first_difference
from lwmfw.record.reading import RecordedRun

_SELECTING = frozenset({"before_memory", "allocate_memory", "select_memory"})
"""Hooks that choose exemplars: after training, and before a phase of balanced images, which is trained on them."""

_AFTER_TRAINING = frozenset({"compute_penalty", "after_training", "after_step", "after_run"}) | _SELECTING
"""Hooks that have no part in the training of a first step without such a phase; those after it are called anyway.
That of a penalty or backbone has a part where it says `acts_first`."""

_ALWAYS = ("data", "backbone", "classifier", "objective")
_BALANCING = ("selector", "rate", "codec")
"""Kinds that decide what a phase of balanced images is trained on, whatever they spare otherwise."""


@dataclass(frozen=True)
class FirstStep:
    """A trained first step.

    Attributes:
        kept: the checkpoint after it.
        record: where it comes from, for results.json.
    """

    kept: Checkpoint
    record: dict[str, Any]

    @property
    def train_seconds(self) -> float:
        """What its training took, as far as that is known."""
        return self.kept.results.steps[0].train_seconds if self.kept.results.steps else 0.0

    @property
    def epochs(self) -> int:
        """How many it was trained for, likewise."""
        return self.kept.results.steps[0].epochs if self.kept.results.steps else 0


def first_step_of(path: Path, assembly: Assembly) -> FirstStep:
    """The first step of the run at `path`, which need not have come further, for a run of other components.

    Raises:
        UserError: no run that has finished it, or one that has trained it in another way; names the key.
        CheckpointRefused: its checkpoint is damaged.
    """
    recorded = RecordedRun(path)
    if recorded.exists and recorded.recipe.recipe.origin:
        raise UserError(f"{path}: has not trained its first step itself; leave --from out")
    if not recorded.exists or 1 not in checkpoint.steps(path / "checkpoints"):
        raise UserError(f"{path}: holds no run that has finished a step; name the directory of one that has")
    kept = recorded.checkpoint(step=1)
    other, balanced = assemble(recorded.recipe), False
    key = _difference(other, kept, assembly, balanced)
    if not key:  # the classes are the same then, so that the phases can be held against each other
        theirs, ours = (_planned(each, len(kept.results.classes_order)) for each in (other, assembly))
        balanced = any(phase.balanced for phase in ours)
        key = "phases" if theirs != ours else _difference(other, kept, assembly, balanced)
    if key:
        raise UserError(f"{path}: its first step was trained in another way ({key} differs); leave --from out")
    for name in _acting(assembly, balanced):
        part = assembly.components[name]
        if part.trait("state") and _gathered(kept.components.get(name), part.method("state")()):
            raise UserError(
                f"{path}: {name} gathers its state while the first step is trained, which cannot be taken over; "
                "leave --from out"
            )
    record = {"recipe": kept.results.recipe, "checkpoint_sha256": checkpoint.digest(kept.path)}
    return FirstStep(kept, record)


def _gathered(kept: dict[str, Any] | None, fresh: dict[str, Any]) -> bool:
    """Whether a component's state after a first step, None where it is not known, is another than before it."""
    tensors = any(isinstance(value, Tensor) for value in (*(kept or {}).values(), *fresh.values()))
    return tensors or kept != fresh


def _planned(assembly: Assembly, classes: int) -> list[Phase]:
    """The phases of the first step of a run that learns so many classes."""
    try:
        return assembly.phases(steps_of(assembly.resolved.recipe.scenario, classes)[0])
    except UserError as error:
        raise UserError(placed(error, assembly.resolved.source)) from error


def _difference(other: Assembly, kept: Checkpoint, assembly: Assembly, balanced: bool) -> str:
    """The key of something by which the training of a first step depends on the recipe; empty: there is none.

    Where images lie is none where a checkpoint knows them; plug-in files are those that have computed it.
    """
    one, two = _what_trains(other, balanced), _what_trains(assembly, balanced)
    for name in _acting(other, balanced):
        table = one[other.components[name].chosen.address]
        computed = kept.results.providers.get(name, "")
        table["provider"] = computed if " sha256:" in computed else table["provider"]
    for place in places(assembly.resolved) if kept.results.data else ():
        table, _, key = place.partition(".")
        if table == "data":
            one["data"].pop(key, None)
            two["data"].pop(key, None)
    return first_difference(one, two)


def _what_trains(assembly: Assembly, balanced: bool) -> dict[str, Any]:
    """Everything that the training of a first step depends on, which has a phase of balanced images or has none."""
    recipe = assembly.resolved.recipe
    tables = assembly.resolved.tables()
    scenario = {key: tables["scenario"][key] for key in ("classes", "first", "order")}
    training = {**recipe.training.settings(1).model_dump(), "precision": recipe.training.precision}
    validation = {"validation": recipe.evaluation.validation}
    acting = {
        chosen.address: {
            "use": chosen.component.name,
            "provider": chosen.component.provider.record,
            **as_written(chosen.options),
        }
        for chosen in (assembly.components[name].chosen for name in _acting(assembly, balanced))
    }
    memory = {"memory": {"budget": recipe.memory.budget}} if balanced and recipe.memory else {}
    return {
        "seed": recipe.seed,
        "scenario": scenario,
        "training": training,
        "evaluation": validation,
        **memory,
        **acting,
    }


def _acting(assembly: Assembly, balanced: bool) -> list[str]:
    """The components that have a part in the training of a first step, with a phase of balanced images or without."""
    always = _ALWAYS + _BALANCING if balanced else _ALWAYS
    return [name for name, part in assembly.components.items() if part.record.kind in always or _acts(part, balanced)]


def _acts(part: Attached, balanced: bool) -> bool:
    if part.record.kind == "observer" or part.trait("spares_first_step"):
        return False
    if part.trait("acts_first"):
        return True
    hooks = set(part.hooks)
    if part.record.kind == "refiner":  # a phase is trained on what was selected, unrefined
        hooks.discard("select_memory")
    return not hooks <= (_AFTER_TRAINING - _SELECTING if balanced else _AFTER_TRAINING)
