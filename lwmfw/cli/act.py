"""The verbs that train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli.options import (
    Device,
    DeviceOption,
    LogOption,
    PluginsOption,
    RecipeArgument,
    ResumeMode,
    RunArgument,
    SeedOption,
    SetOption,
    ThreadsOption,
    load,
)
from lwmfw.cli.table import print_table

if TYPE_CHECKING:
    from lwmfw.assembly.parts import Assembly


def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run directory.")] = None,
    set_: SetOption = [],
    seed: SeedOption = None,
    device: DeviceOption = Device.AUTO,
    plugins: PluginsOption = [],
    resume: Annotated[ResumeMode, typer.Option(help="An unfinished run in --out.")] = ResumeMode.AUTO,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Take the first step of a finished run that trained it likewise."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop; writes nothing.")] = False,
    threads: ThreadsOption = None,
    log: LogOption = None,
) -> None:
    """Train and evaluate a recipe, step by step."""
    from lwmfw.assembly.assemble import assemble

    resolved = load(recipe, [*set_, *_threads(threads)], seed, plugins)
    if dry_run:
        _print_plan(assemble(resolved), device, from_)
        return
    _execute(assemble(resolved), out, device, resume, from_, log)


def search(
    recipe: RecipeArgument,
    lr: Annotated[str, typer.Option(metavar="LR,...", help="Candidate learning rates, as in 0.1,0.05,0.02.")],
    trade_off: Annotated[
        list[str],
        typer.Option(metavar="KEY", help="What is traded off; default: the weight of every penalty. Repeatable."),
    ] = [],
    start: Annotated[float, typer.Option(help="The first trade-offs are the recipe's times this.")] = 10.0,
    keep: Annotated[float, typer.Option(help="Share of fine-tuning's accuracy that a step has to reach.")] = 0.8,
    decay: Annotated[float, typer.Option(help="What trade-offs are multiplied by after a trial below that.")] = 0.5,
    trials: Annotated[int, typer.Option(help="How often trade-offs are tried in a step at most.", min=1)] = 7,
    steps: Annotated[int, typer.Option(help="How many steps are searched at most; 0: all.", min=0)] = 2,
    validation: Annotated[
        float | None, typer.Option(help="Share of the training images held out; default: the recipe's, or 0.1.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A new directory.")] = None,
    set_: SetOption = [],
    seed: SeedOption = None,
    device: DeviceOption = Device.AUTO,
    plugins: PluginsOption = [],
) -> None:
    """Find learning rate and penalty weights step by step, without the test set."""
    from lwmfw.search.decide import Search, found_rows, parse_rates, trade_offs_of

    resolved = load(recipe, set_, seed, plugins)
    share = resolved.recipe.evaluation.validation or 0.1 if validation is None else validation
    trade_offs = trade_offs_of(resolved, trade_off)
    wanted = Search(parse_rates(lr), trade_offs, start, keep, decay, trials, steps, share)
    from lwmfw.search.trials import search_recipe

    found = search_recipe(resolved, wanted, out, device.value, lambda line: print(line, file=sys.stderr))
    print_table(*found_rows(found))


def resume(
    run: RunArgument, device: DeviceOption = Device.AUTO, threads: ThreadsOption = None, log: LogOption = None
) -> None:
    """Go on with an interrupted run from its last finished step."""
    from lwmfw.assembly.assemble import assemble
    from lwmfw.recipe.load import override
    from lwmfw.recipe.settings import parse_settings
    from lwmfw.record.reading import RecordedRun

    recipe = override(RecordedRun(run).recipe, parse_settings(_threads(threads)))
    _execute(assemble(recipe), run, device, ResumeMode.MUST, log=log)


def _threads(count: int | None) -> list[str]:
    """`--threads` as behind `--set`."""
    return [f"training.threads={count}"] if count else []


def _execute(
    assembly: Assembly,
    out: Path | None,
    device: Device,
    resume: ResumeMode,
    from_run: Path | None = None,
    log: Path | None = None,
) -> None:
    from lwmfw.api import execute
    from lwmfw.cli.log import logged
    from lwmfw.record.compare import result_rows

    with logged(log):
        run = execute(assembly, out, device.value, resume.value, from_run)
    print_table(*result_rows(run.results), kept=3)


def _print_plan(assembly: Assembly, device: Device, from_run: Path | None) -> None:
    from lwmfw.api import prepared_run
    from lwmfw.cli.plan import plan_rows

    print_table(*plan_rows(prepared_run(assembly, device.value, from_run)))
