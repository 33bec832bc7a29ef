"""A run that was made of others, recorded like one that was trained."""

from __future__ import annotations

from pathlib import Path

from lwmfw.engine.evaluate import evaluate
from lwmfw.engine.going_on import save
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.prepare import environment
from lwmfw.engine.run import Run
from lwmfw.recipe.load import override
from lwmfw.recipe.scenario import Step
from lwmfw.record import checkpoint
from lwmfw.record.directory import open_directory


def keep(run: Run, origin: OpenedRun, out: Path | None) -> Path:
    """Write the directory of a finished run; returns its path.

    Args:
        run: as it is to be found there.
        origin: the run it was made from, whose recipe it has.
        out: a new directory; None: the default one.

    Raises:
        UserError: the directory is in use.
    """
    made_from = {"run": str(origin.path), "checkpoint": checkpoint.digest(origin.checkpoint().path)}
    resolved = override(origin.recipe, {"origin": made_from})
    directory, _ = open_directory(resolved, out, "never")
    try:
        directory.start(resolved)
        directory.write_environment(environment(run))
        run.directory = directory
        save(run)
        directory.finish()
    finally:
        directory.close()
    return directory.path


def measured(run: Run, step: Step) -> None:
    """Add the result of a step in which nothing was trained and for which there may be no test images."""
    run.results.steps.append(evaluate(run, step, train_seconds=0.0))
