"""How a run goes on from what was kept: its own newest checkpoint, or a first step that another run has trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lwmfw.engine.build import grow
from lwmfw.engine.drift import drift_of
from lwmfw.engine.facts import other_first_step
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.kept import snapshot, stateful
from lwmfw.engine.prepare import environment
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


@dataclass(frozen=True)
class Left:
    """What a run has left in its directory.

    Attributes:
        step: the one that it goes on with.
        kept: its newest checkpoint of which nothing is damaged.
        place: where it was inside the step.
        damaged: what is newer and damaged, and what to say of it.
    """

    step: int
    kept: Checkpoint | None = None
    place: Checkpoint | None = None
    damaged: Mapping[Path, str] = field(default_factory=dict)


def go_on(run: Run) -> None:
    """Take up the origin or the newest checkpoint, if there is one, and drop what was logged after it.

    Raises:
        CheckpointRefused: it is damaged, does not fit the recipe, was computed in another way, or on other data; the
            directory is as it was then.
    """
    left = left_by(run, run.directory) if run.directory else Left(run.known_steps + 1)
    kept, place = left.kept, left.place
    newest = place or kept
    drift = drift_of(run, newest, left.step) if newest else []
    if kept:
        now = run.results
        former = former_files(kept.results, now)
        restore(run, kept, {name: file.partition(" sha256:")[0] for name, file in former.items()})
        run.results = with_sources(run, kept.results, now)
    elif run.origin:
        restore(run, run.origin.with_parts_of(run.model))
    if newest:
        run.results.drift = [*newest.results.drift, *drift]
    if place:
        there = replace(place.results, steps=run.results.steps, drift=run.results.drift)
        run.results = with_sources(run, there, run.results)
        run.progress.go_on_from(place)
    if run.directory:
        put_in_order(run, run.directory, left)


def put_in_order(run: Run, directory: RunDirectory, left: Left) -> None:
    """Have the directory say from where the run goes on, now that nothing refuses it.

    Results come first: wherever this ends, they do not tell of more than the checkpoints that are there.
    """
    directory.write_environment(environment(run))
    if left.kept:
        directory.write_results(run.results)  # which a run that was killed may not have written
    for path, fault in left.damaged.items():
        aside = checkpoint.set_aside(path)
        print(f"{fault}, to the same bits; what is damaged is {aside.name} now", file=sys.stderr)
    if left.place:
        directory.forget_log_after(place_of(left.place).logged)
    else:
        directory.forget_epochs_after(len(run.results.steps))
    directory.restate(run.assembly.resolved)
    tidy(directory, left.place)


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


def left_by(run: Run, directory: RunDirectory) -> Left:
    """What a run has left; nothing is changed.

    Raises:
        CheckpointRefused: it is damaged and the run may not fall back, or something is gone.
    """
    check_nothing_is_lost(directory)
    kept, damaged = finished(run, directory)
    step = (len(kept.results.steps) if kept else run.known_steps) + 1
    path, place = checkpoint.inside(directory.checkpoints, step), None
    if path:
        try:
            place = place_inside(run, path, step)
        except CheckpointRefused as error:
            if not run.falls_back:
                raise
            damaged[path] = f"{error}; goes on from the beginning of its step"
    if place:
        directory.check_log(place_of(place).logged, place.path)
    return Left(step, kept, place, damaged)


def finished(run: Run, directory: RunDirectory) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint; if it is damaged and the run may fall back, the newest of which nothing is damaged.

    Raises:
        CheckpointRefused: it is damaged.
    """
    paths, faults = checkpoint.finished(directory.checkpoints), {}
    for path in reversed(paths):
        try:
            kept = checkpoint.read(path)
        except CheckpointRefused as error:
            if not run.falls_back or path == paths[0]:
                raise
            faults[path] = error
        else:
            to = f"the end of step {len(kept.results.steps)}"
            return kept, {path: f"{error}; goes on from {to}" for path, error in faults.items()}
    return None, {}


def place_inside(run: Run, path: Path, step: int) -> Checkpoint | None:
    """Where the run was inside a step; None: of no use.

    Of no use is a place in a step that a plug-in file has begun which is mended now: the mended file learns the step
    alone. So is one in a training that another run has done.

    Raises:
        CheckpointRefused: it is damaged.
    """
    place = checkpoint.read(path)
    taken = run.first_step is not None and step == 1 and place_of(place).stage < READOUTS
    return None if taken or former_files(place.results, run.results) else place


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


def restore(run: Run, kept: Checkpoint, mended: Mapping[str, str] = {}) -> None:
    """Put a run where a checkpoint left it; `mended` as `checkpoint.restore` has it."""
    run.results = kept.results
    for step in run.steps[: len(kept.results.steps)]:
        grow(run.assembly, run.model, step)
    checkpoint.restore(kept, run.model, stateful(run), mended)
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
        RunFailed: the directory is not there any more.
    """
    run.progress.look()
    run.progress.end_step()
    run.results.complete = not run.remaining_steps
    if run.directory is None:
        return
    run.directory.check_is_there()
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
