"""Taking the first step of a run from another run that trained it in the same way.

The first step is often the longest, and methods differ in what comes after it. What is taken is the trained model:
exemplars, evaluation and whatever else follows training are computed anew, so that the result has the bits of a run
that trains its first step itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.calls import Attached
from lwmfw.assembly.contract import check_hooks
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.recipe.load import Chosen
from lwmfw.recipe.options import as_written
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import first_difference
from lwmfw.record.reading import RecordedRun

_AFTER_TRAINING = frozenset(
    {"compute_penalty", "before_memory", "allocate_memory", "select_memory", "after_step", "after_run"}
)
"""Hooks that have no part in the training of a first step; those after it are called anyway."""

_ALWAYS = ("data", "backbone", "classifier", "objective")


@dataclass(frozen=True)
class FirstStep:
    """A trained first step.

    Attributes:
        kept: the checkpoint after it.
        train_seconds: what it took.
        record: where it comes from, for results.json.
    """

    kept: Checkpoint
    train_seconds: float
    record: dict[str, Any]


def first_step_of(path: Path, assembly: Assembly) -> FirstStep:
    """The first step of the finished run at `path`, for a run of other components.

    Raises:
        UserError: no finished run, or one whose first step was trained in another way; names the key.
        CheckpointRefused: its checkpoint is damaged.
    """
    recorded = RecordedRun(path)
    if not recorded.finished:
        raise UserError(f"{path}: holds no finished run; name the directory of one that has ended")
    other = assemble(recorded.recipe)
    key = first_difference(_what_trains(other), _what_trains(assembly))
    if key:
        raise UserError(f"{path}: its first step was trained in another way ({key} differs); leave --from out")
    for name in _acting(assembly):
        if assembly.components[name].trait("state"):
            raise UserError(
                f"{path}: {name} gathers its state while the first step is trained, which cannot be taken over; "
                "leave --from out"
            )
    kept = recorded.checkpoint(step=1)
    seconds = kept.results.steps[0].train_seconds
    record = {"recipe": kept.results.recipe, "checkpoint_sha256": checkpoint.digest(kept.path)}
    return FirstStep(kept, seconds, record)


def _what_trains(assembly: Assembly) -> dict[str, Any]:
    """Everything that the training of a first step depends on."""
    recipe = assembly.resolved.recipe
    tables = assembly.resolved.tables()
    scenario = {key: tables["scenario"][key] for key in ("classes", "first", "order")}
    training = {**recipe.training.settings(1).model_dump(), "precision": recipe.training.precision}
    validation = {"validation": recipe.evaluation.validation}
    acting = {
        _address(chosen): {
            "use": chosen.component.name,
            "provider": chosen.component.provider.record,
            **as_written(chosen.options),
        }
        for chosen in (assembly.components[name].chosen for name in _acting(assembly))
    }
    return {"seed": recipe.seed, "scenario": scenario, "training": training, "evaluation": validation, **acting}


def _address(chosen: Chosen) -> str:
    """A component's place in a recipe, as behind `--set`."""
    *table, last = chosen.keys
    return ".".join(map(str, (*table, chosen.name if isinstance(last, int) else last)))


def _acting(assembly: Assembly) -> list[str]:
    """The components that have a part in the training of a first step."""
    return [name for name, part in assembly.components.items() if part.record.kind in _ALWAYS or _acts(part)]


def _acts(part: Attached) -> bool:
    if part.record.kind == "observer" or part.trait("spares_first_step"):
        return False
    return not check_hooks(part.instance, part.provider, part.record.kind).keys() <= _AFTER_TRAINING
