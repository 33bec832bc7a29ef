"""How a run goes on from what was kept: its own newest checkpoint, or a first step that another run has trained."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from lwmfw.engine.build import grow
from lwmfw.engine.drift import drift_of
from lwmfw.engine.facts import other_first_step
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.kept import snapshot, stateful
from lwmfw.engine.progress import READOUTS, place_of
from lwmfw.engine.run import Run
from lwmfw.engine.threads import use_threads
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.model.growing import Model, frozen_copy
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import RunDirectory
from lwmfw.record.reading import digest_of, settings_of
from lwmfw.record.results import MATRIX_CLASSES, Results


def go_on(run: Run) -> None:
    """Take up the origin or the newest checkpoint, if there is one, and drop what was logged after it.

    Raises:
        CheckpointRefused: it is damaged, does not fit the recipe, was computed in another way, or on other data.
    """
    directory = run.directory
    kept = finished(run, directory) if directory else None
    begun = len(kept.results.steps) if kept else run.known_steps
    place = place_inside(run, directory, begun + 1) if directory else None
    newest = place or kept
    drift = drift_of(run, newest, begun + 1) if newest else []
    if kept:
        now = run.results
        restore(run, kept)
        run.results = with_sources(run, kept.results, now)
    elif run.origin:
        restore(run, run.origin.with_parts_of(run.model))
    if newest:
        run.results.drift = [*newest.results.drift, *drift]
    if directory:
        go_on_inside(run, directory, place)
        directory.restate(run.assembly.resolved)
        if kept:
            directory.write_results(run.results)  # which a run that was killed may not have written
        tidy(directory, place)


def finish(run: Run) -> None:
    """All steps are recorded."""
    if run.directory:
        tidy(run.directory)  # once more: what could not be removed may be now
        run.directory.finish()


def tidy(directory: RunDirectory, place: Checkpoint | None = None) -> None:
    """Remove what an end at any place has left: older checkpoints, all places inside steps but that where the run is,
    and files that were not written to the end."""
    checkpoint.remove_older(directory.checkpoints, place.path if place else None)
    directory.remove_unfinished()


def go_on_inside(run: Run, directory: RunDirectory, place: Checkpoint | None) -> None:
    """Go on from a place inside a step, if the run was left at one, and drop what was logged after that.

    Raises:
        CheckpointRefused: what was logged before is not there.
    """
    if place is None:
        directory.forget_epochs_after(len(run.results.steps))
        return
    drift = run.results.drift
    run.results = with_sources(run, replace(place.results, steps=run.results.steps, drift=drift), run.results)
    directory.forget_log_after(place_of(place).logged, place.path)
    run.progress.go_on_from(place)


def finished(run: Run, directory: RunDirectory) -> Checkpoint | None:
    """The newest checkpoint; if it is damaged and the run may fall back, the newest of which nothing is damaged.

    Raises:
        CheckpointRefused: it is damaged, or gone.
    """
    check_nothing_is_lost(directory)
    paths = checkpoint.finished(directory.checkpoints)
    kept, damaged = None, []
    for path in reversed(paths):
        try:
            kept = checkpoint.read(path)
            break
        except CheckpointRefused as error:
            if not run.falls_back or path == paths[0]:
                raise
            damaged.append((path, error))
    for path, fault in damaged:
        fall_back(path, fault, f"the end of step {len(kept.results.steps) if kept else 0}")
    if damaged:
        checkpoint.remove_inside(directory.checkpoints)
    return kept


def place_inside(run: Run, directory: RunDirectory, step: int) -> Checkpoint | None:
    """Where the run was inside a step; None: not known, of no use, or damaged where it may fall back.

    Of no use is a place in a step that a plug-in file has begun which is mended now: the mended file learns the step
    alone. So is one in a training that another run has done.

    Raises:
        CheckpointRefused: it is damaged.
    """
    path = checkpoint.inside(directory.checkpoints, step)
    if path is None:
        return None
    try:
        place = checkpoint.read(path)
        stage = place_of(place).stage
    except CheckpointRefused as error:
        if not run.falls_back:
            raise
        fall_back(path, error, "the beginning of its step")
        return None
    taken = run.first_step is not None and step == 1 and stage < READOUTS
    if taken or former_files(place.results, run.results):
        checkpoint.remove_inside(directory.checkpoints)
        return None
    return place


def fall_back(damaged: Path, error: CheckpointRefused, to: str) -> None:
    """Set aside what is damaged, and say so."""
    aside = checkpoint.set_aside(damaged)
    print(f"{error}; goes on from {to}, to the same bits; what is damaged is {aside.name} now", file=sys.stderr)


def check_nothing_is_lost(directory: RunDirectory) -> None:
    """See that every step that results.json tells of is in a checkpoint.

    Raises:
        CheckpointRefused: it is not: checkpoints were removed.
    """
    told, there = directory.recorded_steps, max(checkpoint.steps(directory.checkpoints), default=0)
    if told > there:
        raise CheckpointRefused(
            f"{directory.path}: results.json has {told} steps, and the newest checkpoint {there or 'is gone'}; put the "
            "checkpoints back, or remove results.json to train the missing steps again"
        )


def with_sources(run: Run, kept: Results, now: Results) -> Results:
    """Results with which a run goes on, with what is known now of data, files and the providers of components.

    Those of plug-in files that were mended are kept beside, with the number of steps that they have computed.
    """
    former = former_files(kept, now)
    providers = kept.providers | {name: now.providers[name] for name in former}
    mended = [*kept.mended, *[{"steps": len(kept.steps), "providers": former}] * bool(former)]
    known = replace(kept, data=now.data, files=kept.files | now.files, providers=providers, mended=mended)
    return replace(known, settings=digest_of(settings_of(run.assembly.resolved.tables(), known)))


def former_files(kept: Results, now: Results) -> dict[str, str]:
    """The plug-in files of components that are others now, by the components' names."""
    return {
        name: provider
        for name, provider in kept.providers.items()
        if " sha256:" in provider and now.providers.get(name, provider) != provider
    }


def restore(run: Run, kept: Checkpoint) -> None:
    """Put a run where a checkpoint left it."""
    run.results = kept.results
    for step in run.steps[: len(kept.results.steps)]:
        grow(run.assembly, run.model, step)
    checkpoint.restore(kept, run.model, stateful(run))
    if run.memory is not None and (run.memory.labels >= run.model.classes).any():
        raise CheckpointRefused(f"{kept.path}: has exemplars of classes that it does not know; start the run anew")


def share_first_step(run: Run, first: FirstStep) -> None:
    """Have the first step taken from another run.

    Raises:
        UserError: it was computed in another way, or on other images.
    """
    computed, threads = first.kept.facts["arithmetic"], first.kept.facts["threads"]
    if computed != run.arithmetic:
        raise UserError(
            f"{first.kept.path}: was computed in {computed}, here it would go on in {run.arithmetic}; "
            "leave --from out, or set training.precision and --device alike"
        )
    others = other_first_step(run, first.kept)
    if others:
        raise UserError(f"{first.kept.path}: its first step was trained on other data: {others}; leave --from out")
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
    run.progress.take_over(first.train_seconds, first.epochs)


def save(run: Run) -> None:
    """Record the finished steps: the checkpoint first, so that results never say more than could be opened.

    Raises:
        NotFinite: a weight is not; nothing is recorded.
    """
    run.progress.look()
    run.results.complete = not run.remaining_steps
    if run.directory is None:
        return
    for result in run.results.steps[:-1]:
        if result.confusion and result.seen > MATRIX_CLASSES:
            run.directory.write_confusion(result)
            result.confusion = {}
    checkpoint.save(run.directory.checkpoints, snapshot(run))
    run.directory.write_results(run.results)


def old_model(run: Run) -> Model | None:
    """The frozen copy that the next step needs, if any component needs it."""
    needed = run.assembly.needs_old and run.model.classes and run.remaining_steps
    return frozen_copy(run.model) if needed else None
