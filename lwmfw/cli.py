"""The command line: thin verbs over the library. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw import __version__
from lwmfw.errors import Interrupted, LwmfwError

if TYPE_CHECKING:
    from lwmfw.assemble import Assembly
    from lwmfw.recipe import Resolved

app = typer.Typer(
    name="lwmfw",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ResumeMode(StrEnum):
    """What to do with an unfinished run in --out."""

    AUTO = "auto"
    NEVER = "never"
    MUST = "must"


class TableFormat(StrEnum):
    """How to print a table."""

    TABLE = "table"
    CSV = "csv"


RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file, or the name of a shipped one.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="K=V", help="Override a key, as in training.epochs=5. Repeatable."),
]
SeedOption = Annotated[int | None, typer.Option(help="Override the recipe's seed.", min=0)]
PluginsOption = Annotated[
    list[Path], typer.Option("--plugins", metavar="PATH", help="A plug-in file to load besides. Repeatable.")
]
DeviceOption = Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")]


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    try:
        app(standalone_mode=True)
    except LwmfwError as error:
        cause = error.__cause__
        if error.exit_code == 1 and cause is not None:
            import traceback

            traceback.print_exception(cause)
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception:
        import traceback

        traceback.print_exc()
        print("lwmfw: this is a bug of lwmfw, please report it with the lines above", file=sys.stderr)
        sys.exit(3)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lwmfw {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Class-incremental image classification: run recipes, mix components, write plug-ins."""


@app.command()
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
) -> None:
    """Train and evaluate a recipe, step by step."""
    from lwmfw.assemble import assemble

    resolved = _load(recipe, set_, seed, plugins)
    if dry_run:
        _print_plan(assemble(resolved), device)
        return
    _execute(assemble(resolved), out, device, resume, from_)


@app.command()
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
    from lwmfw.tradeoff import Search, found_rows, parse_rates, trade_offs_of

    resolved = _load(recipe, set_, seed, plugins)
    share = resolved.recipe.evaluation.validation or 0.1 if validation is None else validation
    trade_offs = trade_offs_of(resolved, trade_off)
    wanted = Search(parse_rates(lr), trade_offs, start, keep, decay, trials, steps, share)
    from lwmfw.search import search_recipe

    with _interruptible():
        found = search_recipe(resolved, wanted, out, device.value, lambda line: print(line, file=sys.stderr))
    _print_table(*found_rows(found))


@app.command(name="resume")
def resume_run(run: RunArgument, device: DeviceOption = Device.AUTO) -> None:
    """Go on with an interrupted run from its last finished step."""
    from lwmfw.assemble import assemble
    from lwmfw.errors import UserError

    if not (run / "resolved.toml").is_file():
        raise UserError(f"{run}: no run directory; name one that holds a resolved.toml")
    _execute(assemble(_load(run / "resolved.toml")), run, device, ResumeMode.MUST)


@app.command()
def check(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
) -> None:
    """Say whether a recipe would run, without its data."""
    from lwmfw.assemble import assemble

    resolved = _load(recipe, set_, seed, plugins)
    assemble(resolved)
    print(f"{resolved.source.path}: ok")


@app.command()
def show(
    recipe: RecipeArgument,
    set_: SetOption = [],
    seed: SeedOption = None,
    plugins: PluginsOption = [],
) -> None:
    """Print a recipe with its bases merged in and every default written out."""
    print(_load(recipe, set_, seed, plugins).toml(), end="")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None,
    copy: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy it, with what it extends.")] = None,
) -> None:
    """List the shipped recipes, print one, or copy them."""
    from lwmfw import shipped

    if copy is not None:
        for path in shipped.copy(name, copy):
            print(path)
    elif name:
        print(shipped.find(name).read_text(encoding="utf-8"), end="")
    else:
        _print_table(["recipe", "purpose"], [[key, shipped.purpose(path)] for key, path in shipped.recipes().items()])


@app.command()
def plugins(
    name: Annotated[str | None, typer.Argument(help="Print the options of this component.")] = None,
    files: PluginsOption = [],
) -> None:
    """List the components that recipes can name, or one component's options."""
    from lwmfw import manual
    from lwmfw.plugins import discover

    catalogue = discover(files)
    if name:
        for component in manual.named(catalogue, name):
            print(f"{component.kind} {component.name}, from {component.provider}: {component.summary}")
            _print_table(["option", "type", "default", "meaning"], manual.option_rows(component))
    else:
        rows = [[c.kind, c.name, str(c.provider), c.summary] for c in manual.sorted_components(catalogue)]
        _print_table(["kind", "name", "from", "what it is"], rows)
    for failure in catalogue.failures:
        print(failure, file=sys.stderr)


@app.command()
def hooks(name: Annotated[str | None, typer.Argument(help="Print this hook's manual.")] = None) -> None:
    """List the moments at which a component can act, or one moment's manual."""
    from lwmfw import manual

    if name:
        print(manual.hook_page(name))
    else:
        _print_table(["hook", "arguments", "when"], manual.hook_rows())


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, with all installed components, for editors."""
    import json

    from lwmfw.plugins import discover
    from lwmfw.schema import recipe_schema

    print(json.dumps(recipe_schema(discover()), indent=1))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    format_: Annotated[TableFormat, typer.Option("--format", help="table, or tidy csv.")] = TableFormat.TABLE,
) -> None:
    """Put the results of runs side by side; seeds of one variant are averaged."""
    from lwmfw.compare import comparison_rows, read_run
    from lwmfw.record import accuracy_csv

    read = [read_run(path) for path in runs]
    if format_ is TableFormat.CSV:
        print(accuracy_csv({str(run.path): run.results for run in read}), end="")
    else:
        _print_table(*comparison_rows(read))


def _load(
    recipe: Path,
    settings: list[str] | None = None,
    seed: int | None = None,
    plugins: list[Path] | None = None,
) -> Resolved:
    from lwmfw import shipped
    from lwmfw.recipe import load_recipe
    from lwmfw.source import parse_settings

    return load_recipe(shipped.locate(recipe), parse_settings(settings or []), seed=seed, plugins=plugins or [])


def _execute(
    assembly: Assembly, out: Path | None, device: Device, resume: ResumeMode, from_run: Path | None = None
) -> None:
    from lwmfw.api import execute
    from lwmfw.compare import result_rows

    with _interruptible():
        run = execute(assembly, out, device.value, resume.value, from_run)
    _print_table(*result_rows(run.results))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, and exit with the code that shells expect of the signal."""
    received = [signal.SIGINT]

    def stop(number: int, frame: object) -> None:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(str(error) or "interrupted before the first step", 128 + received[0]) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _print_plan(assembly: Assembly, device: Device) -> None:
    from lwmfw.plan import plan_rows
    from lwmfw.state import prepare

    _print_table(*plan_rows(prepare(assembly, device.value)))


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    """A table on stdout: ruled on a terminal, aligned columns elsewhere; columns of numbers are set right."""
    right = [bool(rows) and all(not row[i] or row[i][0] in "0123456789-" for row in rows) for i in range(len(header))]
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        for row in [header, *rows]:
            cells = zip(row, widths, right, strict=True)
            print("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, number in zip(header, right, strict=True):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
