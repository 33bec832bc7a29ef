"""How a run goes on from what was kept: its own newest checkpoint, or a first step that another run has trained."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch

from lwmfw.data.loader import Preprocessing
from lwmfw.engine.build import grow
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.run import Run
from lwmfw.engine.threads import use_threads
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.model.growing import Model, frozen_copy
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import RunDirectory


def go_on(run: Run) -> None:
    """Take up the origin or the newest checkpoint, if there is one, and drop what was logged after it.

    Raises:
        CheckpointRefused: it is damaged, does not fit the recipe, or was computed in another way.
    """
    kept = checkpoint.load(run.directory.checkpoints) if run.directory else None
    if run.directory:
        check_nothing_is_lost(run.directory, kept)
    if kept:
        check_arithmetic(run, kept)
        restore(run, kept)
        if run.directory:
            run.directory.write_results(run.results)  # which a run that was killed may not have written
    elif run.origin:
        restore(run, run.origin.with_parts_of(run.model))
    if run.directory:
        run.directory.forget_epochs_after(len(run.results.steps))


def check_nothing_is_lost(directory: RunDirectory, kept: Checkpoint | None) -> None:
    """See that every step that results.json tells of is in a checkpoint.

    Raises:
        CheckpointRefused: it is not: checkpoints were removed.
    """
    told, there = directory.recorded_steps, len(kept.results.steps) if kept else 0
    if told > there:
        raise CheckpointRefused(
            f"{directory.path}: results.json has {told} steps, and the newest checkpoint {there or 'is gone'}; put the "
            "checkpoints back, or remove results.json to train the missing steps again"
        )


def check_arithmetic(run: Run, kept: Checkpoint) -> None:
    """See that a run goes on as it was computed, for the same bits.

    Raises:
        CheckpointRefused: it would be computed in another way.
    """
    if kept.facts["arithmetic"] != run.arithmetic:
        raise CheckpointRefused(
            f"{kept.path}: was computed in {kept.facts['arithmetic']}, here it would go on in {run.arithmetic}; "
            "resume where it was started, or start anew"
        )
    use_threads(run.recipe.training.threads or kept.facts["threads"])


def restore(run: Run, kept: Checkpoint) -> None:
    """Put a run where a checkpoint left it."""
    run.results = kept.results
    for step in run.steps[: len(kept.results.steps)]:
        grow(run.assembly, run.model, step)
    checkpoint.restore(kept, run.model, stateful(run))


def share_first_step(run: Run, first: FirstStep) -> None:
    """Have the first step taken from another run.

    Raises:
        UserError: it was computed in another way.
    """
    computed, threads = first.kept.facts["arithmetic"], first.kept.facts["threads"]
    if computed != run.arithmetic:
        raise UserError(
            f"{first.kept.path}: was computed in {computed}, here it would go on in {run.arithmetic}; "
            "leave --from out, or set training.precision and --device alike"
        )
    if run.recipe.training.threads not in (0, threads):
        raise UserError(
            f"{first.kept.path}: was computed with {threads} threads, here it would go on with "
            f"{run.recipe.training.threads}; leave --from or --threads out"
        )
    use_threads(threads)
    run.first_step = first


def take_first_step(run: Run, first: FirstStep) -> None:
    """The model as another run has trained it in its first step."""
    checkpoint.restore(first.kept, run.model, {})
    # where training would have ended: what comes next draws the same random numbers
    run.position.phase = run.phases(run.steps[0])[-1].name
    run.results.first_step = first.record


def save(run: Run) -> None:
    """Record the finished steps: the checkpoint first, so that results never say more than could be opened."""
    run.results.complete = not run.remaining_steps
    if run.directory is None:
        return
    checkpoint.save(run.directory.checkpoints, snapshot(run))
    run.directory.write_results(run.results)


def snapshot(run: Run) -> Checkpoint:
    """The finished steps as a checkpoint in memory."""
    facts = {
        "threads": torch.get_num_threads(),
        "arithmetic": run.arithmetic,
        "preprocessing": asdict(Preprocessing.of(run.data)),
    }
    return checkpoint.take(run.model, stateful(run), run.results, facts)


def stateful(run: Run) -> dict[str, Any]:
    """What a checkpoint keeps besides model and results, by name; no component is named with brackets."""
    parts: dict[str, Any] = {
        name: SimpleNamespace(state=part.method("state"), restore=part.method("restore"))
        for name, part in run.assembly.components.items()
        if part.trait("state")
    }
    return parts | ({"[memory]": run.memory} if run.memory else {})


def old_model(run: Run) -> Model | None:
    """The frozen copy that the next step needs, if any component needs it."""
    needed = run.assembly.needs_old and run.model.classes and run.remaining_steps
    return frozen_copy(run.model) if needed else None
