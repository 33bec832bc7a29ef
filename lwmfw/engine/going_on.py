"""How a run goes on from what was kept: its own newest checkpoint, or a first step that another run has trained."""

from __future__ import annotations

from dataclasses import replace

from lwmfw.engine.build import grow
from lwmfw.engine.facts import other_first_step, other_sources, refuse_others
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.kept import snapshot, stateful
from lwmfw.engine.run import Run
from lwmfw.engine.threads import use_threads
from lwmfw.errors import CheckpointRefused, UserError
from lwmfw.model.growing import Model, frozen_copy
from lwmfw.record import checkpoint
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import RunDirectory
from lwmfw.record.results import MATRIX_CLASSES, Results


def go_on(run: Run) -> None:
    """Take up the origin or the newest checkpoint, if there is one, and drop what was logged after it.

    Raises:
        CheckpointRefused: it is damaged, does not fit the recipe, was computed in another way, or on other data.
    """
    directory = run.directory
    kept = checkpoint.load(directory.checkpoints) if directory else None
    if directory:
        check_nothing_is_lost(directory, kept)
    if kept:
        check_alike(run, kept)
        now = run.results
        restore(run, kept)
        run.results = with_sources(kept.results, now)
    elif run.origin:
        restore(run, run.origin.with_parts_of(run.model))
    if directory:
        directory.restate(run.assembly.resolved)
        if kept:
            directory.write_results(run.results)  # which a run that was killed may not have written
        go_on_inside(run, directory)
        tidy(directory)


def finish(run: Run) -> None:
    """All steps are recorded."""
    if run.directory:
        tidy(run.directory)  # once more: what could not be removed may be now
        run.directory.finish()


def tidy(directory: RunDirectory) -> None:
    """Remove what an end at any place has left: older checkpoints, and files that were not written to the end."""
    checkpoint.remove_older(directory.checkpoints)
    directory.remove_unfinished()


def go_on_inside(run: Run, directory: RunDirectory) -> None:
    """Go on from inside a step, if the run was left there, and drop what was logged after that.

    Raises:
        CheckpointRefused: what was kept there is damaged, or was computed in another way or on other data.
    """
    kept = checkpoint.load_inside(directory.checkpoints, len(run.results.steps) + 1)
    if kept is None:
        directory.forget_epochs_after(len(run.results.steps))
        return
    check_alike(run, kept)
    run.results = with_sources(replace(kept.results, steps=run.results.steps), run.results)
    directory.forget_log_after(kept.facts["progress"]["logged"])
    run.progress.go_on_from(kept)


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


def check_alike(run: Run, kept: Checkpoint) -> None:
    """See that a run goes on as it was computed, for the same bits, and on what it has learned from.

    Raises:
        CheckpointRefused: it would be computed in another way, or on other images.
    """
    refuse_others(kept.path.parents[1], run.assembly.resolved, other_sources(run, kept))
    if not isinstance(kept.facts.get("arithmetic"), str) or not isinstance(kept.facts.get("threads"), int):
        raise CheckpointRefused(f"{kept.path}: does not say how it was computed; start the run anew")
    if kept.facts["arithmetic"] != run.arithmetic:
        raise CheckpointRefused(
            f"{kept.path}: was computed in {kept.facts['arithmetic']}, here it would go on in {run.arithmetic}; "
            "resume where it was started, or start anew"
        )
    use_threads(run.recipe.training.threads or kept.facts["threads"])


def with_sources(kept: Results, now: Results) -> Results:
    """Results that go on, with what is known now of data, files and the providers of components.

    Those of plug-in files that were mended are kept beside, with the number of steps that they have computed.
    """
    former = {
        name: provider
        for name, provider in kept.providers.items()
        if " sha256:" in provider and now.providers.get(name, provider) != provider
    }
    providers = kept.providers | {name: now.providers[name] for name in former}
    mended = [*kept.mended, *[{"steps": len(kept.steps), "providers": former}] * bool(former)]
    kept = replace(kept, settings=now.settings)
    return replace(kept, data=now.data, files=kept.files | now.files, providers=providers, mended=mended)


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
