"""The verbs that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli import complete, leave
from lwmfw.cli.letters import tell
from lwmfw.cli.log import check_heard, logged, tell_end
from lwmfw.cli.options import (
    Device,
    DeviceOption,
    DriftOption,
    JsonOption,
    KeepOption,
    LogOption,
    PluginsOption,
    RecipeArgument,
    ResumeMode,
    RunArgument,
    SaveOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    load,
)
from lwmfw.cli.table import print_json, print_table

if TYPE_CHECKING:
    from lwmfw.assembly.parts import Assembly
    from lwmfw.engine.run import Run


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
        typer.Option(
            "--from",
            metavar="RUN",
            help="Take the first step of a run that has trained it likewise.",
            autocompletion=complete.run,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop; writes nothing.")] = False,
    threads: ThreadsOption = None,
    save_every: SaveOption = "10 min",
    allow_drift: DriftOption = [],
    keep_steps: KeepOption = False,
    log: LogOption = None,
    json: JsonOption = False,
) -> None:
    """Train and evaluate a recipe, step by step."""
    from lwmfw.api import execute
    from lwmfw.assembly.assemble import assemble
    from lwmfw.engine.drift import parse_drift
    from lwmfw.engine.progress import parse_save_every

    settings = [*set_, *_threads(threads)]
    every, allowed = parse_save_every(save_every), parse_drift(allow_drift)
    if dry_run:
        _print_plan(assemble(load(recipe, settings, seed, plugins)), device, from_, out, json)
        return
    with logged(log):
        resolved = load(recipe, settings, seed, plugins)
        check_heard(log, resolved.tables())
        done = execute(assemble(resolved), out, device.value, resume.value, from_, every, allowed, keep_steps)
        tell_end(done)
    leave.leave(done, lambda: _print_results(done, json))


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
    json: JsonOption = False,
) -> None:
    """Find learning rate and penalty weights step by step, without the test set."""
    from lwmfw.search.decide import Search, found_json, found_rows, parse_rates, trade_offs_of

    resolved = load(recipe, set_, seed, plugins)
    share = resolved.recipe.evaluation.validation or 0.1 if validation is None else validation
    trade_offs = trade_offs_of(resolved, trade_off)
    wanted = Search(parse_rates(lr), trade_offs, start, keep, decay, trials, steps, share)
    from lwmfw.search.trials import search_recipe

    found = search_recipe(resolved, wanted, out, device.value, tell)
    if json:
        print_json(found_json(found))
        return
    header, rows = found_rows(found)
    print_table(header, rows, kept=len(header))


def resume(
    run: RunArgument,
    device: DeviceOption = Device.AUTO,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="K=PATH", help="Where files lie now, as in data.root=DIR. Repeatable."),
    ] = [],
    plugins: Annotated[
        list[Path],
        typer.Option("--plugins", metavar="PATH", help="A mended plug-in file, in place of the run's. Repeatable."),
    ] = [],
    threads: ThreadsOption = None,
    save_every: SaveOption = "10 min",
    allow_drift: DriftOption = [],
    keep_steps: KeepOption = False,
    log: LogOption = None,
    json: JsonOption = False,
) -> None:
    """Go on with an interrupted run where it was."""
    from lwmfw.api import execute_again
    from lwmfw.engine.drift import parse_drift
    from lwmfw.engine.progress import parse_save_every
    from lwmfw.recipe.load import plugin_files
    from lwmfw.recipe.settings import parse_settings
    from lwmfw.record.reading import RecordedRun

    with logged(log):
        settings = parse_settings(set_)
        check_heard(log, RecordedRun(run).tables)
        every, allowed = parse_save_every(save_every), parse_drift(allow_drift)
        files = plugin_files(plugins)
        done = execute_again(run, settings, device.value, files, threads or 0, every, allowed, keep_steps)
        tell_end(done)
    leave.leave(done, lambda: _print_results(done, json))


def _threads(count: int | None) -> list[str]:
    """`--threads` as behind `--set`."""
    return [f"training.threads={count}"] if count else []


def _print_results(done: Run, json: bool) -> None:
    from lwmfw.record.tables import result_rows

    if json:
        print_json({"run": str(done.directory.path) if done.directory else "", **done.results.to_json()})
    else:
        print_table(*result_rows(done.results), kept=4)


def _print_plan(assembly: Assembly, device: Device, from_run: Path | None, out: Path | None, json: bool) -> None:
    from lwmfw.api import planned_run
    from lwmfw.cli.plan import plan, plan_rows

    planned = plan(planned_run(assembly, device.value, from_run, out))
    if json:
        print_json(planned)
    else:
        print_table(*plan_rows(planned))
