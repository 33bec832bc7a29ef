"""A run that was made of others, recorded like one that was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from lwmfw.engine.going_on import finish
from lwmfw.engine.kept import snapshot
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.prepare import environment
from lwmfw.engine.run import Run
from lwmfw.recipe.load import Resolved, override
from lwmfw.record import checkpoint
from lwmfw.record.directory import open_directory
from lwmfw.record.files import remove
from lwmfw.record.reading import digest_of, settings_of


def keep(run: Run, out: Path | None, arithmetic: str = "") -> None:
    """Write the directory of a finished run; what was left of one that was stopped meanwhile is written anew.

    Args:
        run: as it is to be found there.
        out: a new directory; None: the default one.
        arithmetic: by which its sums were computed; empty: by its own.

    Raises:
        UserError: the directory holds something else.
        RunBusy: another process owns it.
    """
    resolved = run.assembly.resolved
    run.results.complete, run.results.settings = True, digest_of(settings_of(resolved.tables(), run.results))
    kept = snapshot(run)
    facts = kept.facts | ({"arithmetic": arithmetic} if arithmetic else {})
    run.directory, _ = open_directory(resolved, out, "auto")
    try:
        remove(run.directory.checkpoints)
        run.directory.start(resolved)  # an unfinished run of this origin is one that was stopped here
        run.directory.write_environment(environment(run))
        checkpoint.save(run.directory.checkpoints, replace(kept, facts=facts))
        run.directory.write_results(run.results)
        finish(run)
    finally:
        run.directory.close()


def recipe_from(origin: OpenedRun, made_by: Literal["merge", "retract"]) -> Resolved:
    """The recipe of a run that was made from another's sums: that of the other, with the read-outs that are sums."""
    kept = checkpoint.digest(origin.checkpoint().path)
    made_from = {"run": str(origin.path.resolve()), "checkpoint": kept, "made_by": made_by}
    exact = [table for table, exact in origin.assembly.readouts() if exact]
    return override(origin.recipe, {"origin": made_from, "readouts": exact})
