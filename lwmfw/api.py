"""lwmfw from Python: `lwmfw.run(recipe)` and `lwmfw.open_run(path)`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lwmfw import loop
from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.parts import Assembly
from lwmfw.data.workers import kept_workers
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.drift import parse_drift
from lwmfw.engine.first_step import first_step_of
from lwmfw.engine.going_on import share_first_step
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.prepare import prepare
from lwmfw.engine.progress import USUAL, SaveEvery, parse_save_every
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import Interrupted, UserError
from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe, override, plugin_files
from lwmfw.recipe.settings import path_of
from lwmfw.record import checkpoint
from lwmfw.record.directory import Resume, open_directory
from lwmfw.record.reading import RecordedRun
from lwmfw.record.renewed import renewed, tell_mended
from lwmfw.record.results import Results


def run(
    recipe: os.PathLike[str] | str,
    set: Mapping[str, object] = {},
    *,
    seed: int | None = None,
    out: os.PathLike[str] | str | None = None,
    device: DeviceName = "auto",
    plugins: os.PathLike[str] | str | Sequence[os.PathLike[str] | str] = (),
    resume: Resume = "auto",
    from_run: os.PathLike[str] | str | None = None,
    save_every: str = "10 min",
    allow_drift: Sequence[str] = (),
    keep_steps: bool = False,
) -> Results:
    """Run a recipe, as `lwmfw run` does.

    Args:
        recipe: the TOML file, or the name of a shipped one.
        set: dotted key -> value, in any order, which win over the file. A value may be a table, which is merged into
            that of the file, a path, a tuple, or a number or array of numpy or torch.
        seed: takes the place of the recipe's.
        out: the run directory; by default `runs/<recipe>/<time>-s<seed>`.
        device: auto takes a GPU if there is one.
        plugins: plug-in files besides the recipe's, or one.
        resume: what to do with an unfinished run in `out`.
        from_run: a run that has trained its first step in the same way; it is not trained again.
        allow_drift: in what an unfinished run may go on otherwise than it was computed: "arithmetic", "data",
            "plugins", "torch".
        keep_steps: keep the model of every step, also when the run is resumed; else of the first and the last alone.

    Returns:
        The results of all steps.

    Raises:
        UserError: a wrong recipe, plug-in or place, or missing data.
        RunFailed: a loss that is not finite, or an error inside a plug-in.
        CheckpointRefused: an unfinished run whose checkpoint is damaged.
        RunBusy: the directory belongs to another process.
        Interrupted: Ctrl-C; finished steps are kept.
    """
    directory = Path(path_of("--out", out)) if out else None
    first = Path(path_of("--from", from_run)) if from_run else None
    resolved = load_recipe(shipped.locate(path_of("recipe", recipe)), set, seed=seed, plugins=plugins)
    every = parse_save_every(save_every)
    allowed = parse_drift(allow_drift)
    return execute(assemble(resolved), directory, device, resume, first, every, allowed, keep_steps).results


def resume(
    run: os.PathLike[str] | str,
    set: Mapping[str, object] = {},
    *,
    device: DeviceName = "auto",
    plugins: os.PathLike[str] | str | Sequence[os.PathLike[str] | str] = (),
    save_every: str = "10 min",
    allow_drift: Sequence[str] = (),
    keep_steps: bool = False,
) -> Results:
    """Go on with an interrupted run where it was, as `lwmfw resume` does.

    Args:
        run: the run directory.
        set: dotted key -> where files lie now, such as `data.root`; what lies there has to be what was there.
        device: auto takes a GPU if there is one.
        plugins: mended plug-in files, or one; each takes the place of the run's file of its name.
        save_every: as `run` has it.
        allow_drift: likewise.
        keep_steps: keep the model of every step from now on, as a run that was begun so does without being told again.

    Returns:
        The results of all steps.

    Raises:
        UserError: no unfinished run, a setting that names no place, or missing data.
        RunFailed: as `run`.
        CheckpointRefused: the checkpoint is damaged, was computed in another way, or learned from other data.
        RunBusy: the directory belongs to another process.
        Interrupted: Ctrl-C; finished steps are kept.
    """
    every, allowed = parse_save_every(save_every), parse_drift(allow_drift)
    path, files = Path(path_of("run", run)), plugin_files(plugins)
    done = execute_again(path, set, device, files, save_every=every, allow_drift=allowed, keep_steps=keep_steps)
    return done.results


@kept_workers()
@given_back()
def execute(
    assembly: Assembly,
    out: Path | None,
    device: DeviceName,
    resume: Resume,
    from_run: Path | None = None,
    save_every: SaveEvery = USUAL,
    allow_drift: frozenset[str] = frozenset(),
    keep_steps: bool = False,
) -> Run:
    """Run assembled components in a directory; raises as `run` does."""
    # whatever can be refused is refused before a directory is made
    prepared = prepared_run(assembly, device, from_run, out)
    prepared.save_every, prepared.allow_drift = save_every, allow_drift
    return record(prepared, out, resume, keep_steps=keep_steps)


@kept_workers()
@given_back()
def execute_again(
    path: Path,
    settings: Mapping[str, object],
    device: DeviceName,
    plugins: Sequence[str] = (),
    threads: int = 0,
    save_every: SaveEvery = USUAL,
    allow_drift: frozenset[str] = frozenset(),
    keep_steps: bool = False,
) -> Run:
    """Go on with the run in a directory; raises as `resume` does."""
    recorded = RecordedRun(path)
    resolved = renewed(recorded, settings, plugins)
    if threads:
        resolved = override(resolved, {"training.threads": threads})
    tell_mended(recorded, resolved)
    kept = bool(checkpoint.steps(path / "checkpoints"))
    prepared = prepare(assemble(resolved), device, filled=kept, again=path if kept else None)
    prepared.save_every, prepared.allow_drift = save_every, allow_drift
    return record(prepared, path, "must", renewed=True, keep_steps=keep_steps)


def record(
    prepared: Run, out: Path | None, resume: Resume = "never", *, renewed: bool = False, keep_steps: bool = False
) -> Run:
    """Run what is prepared in a directory, which may have begun with other places; raises as `run` does."""
    assembly = prepared.assembly
    directory, known = open_directory(assembly.resolved, out, resume, renewed=renewed)
    try:
        prepared.directory, prepared.falls_back = directory, resume == "auto"
        with told_in_words(assembly, directory.path):
            if not known:
                directory.start(assembly.resolved)
            if keep_steps:
                directory.keep_every_step()
            loop.train(prepared)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"{directory.path}: interrupted {assembly.position}; {directory.what_is_kept()}", exit_code=130
        ) from error
    finally:
        directory.close()
    return prepared


def prepared_run(assembly: Assembly, device: DeviceName, from_run: Path | None, out: Path | None = None) -> Run:
    """A run before its first step, which is taken from another run if one is named; raises as `run` does.

    Where a checkpoint lies in `out`, or the first step is taken, initial weights may be gone.
    """
    if from_run and assembly.resolved.recipe.origin:
        raise UserError("--from: a run with an [origin] begins behind its first step; leave --from out")
    first_step = first_step_of(from_run, assembly) if from_run else None
    kept = out is not None and bool(checkpoint.steps(out / "checkpoints"))
    prepared = prepare(assembly, device, filled=kept or first_step is not None)
    if first_step:
        share_first_step(prepared, first_step)
    return prepared


def planned_run(assembly: Assembly, device: DeviceName, from_run: Path | None, out: Path | None = None) -> Run:
    """A run that is only planned: what its components refuse when it begins, they refuse here; raises as `run` does.

    Observers, which tell of a run and draw it, are not asked.
    """
    run = prepared_run(assembly, device, from_run, out)
    parts = [part for part in run.assembly.components.values() if part.record.kind != "observer"]
    with told_in_words(run.assembly, Path.cwd()):
        try:
            for part in parts:
                if "before_run" in part.hooks:
                    part.hook("before_run")(run, run.rng)
        finally:
            for part in parts:
                if "after_run" in part.hooks:
                    part.hook("after_run")(run, run.results, run.rng)
    return run


@given_back()
def open_run(path: os.PathLike[str] | str) -> OpenedRun:
    """Read a run: its results, the model of its last finished step or of the first, its exemplars.

    Args:
        path: the run directory.

    Raises:
        UserError: no run there, or none that has finished a step.
        CheckpointRefused: the checkpoint is damaged.
    """
    opened = OpenedRun(Path(path_of("run", path)))
    _ = opened.results, opened.model  # what is wrong with the run is found here
    return opened
