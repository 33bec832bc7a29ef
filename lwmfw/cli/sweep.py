"""The verb that runs many recipes, and what it shows meanwhile."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli import complete
from lwmfw.cli.letters import printable, tell
from lwmfw.cli.look import print_comparison
from lwmfw.cli.options import Device, DeviceOption, PluginsOption
from lwmfw.cli.table import print_table
from lwmfw.errors import RunBusy, RunFailed

if TYPE_CHECKING:
    from rich.console import Group

    from lwmfw.sweep.folder import SweepFolder
    from lwmfw.sweep.grid import Cell


def sweep(
    recipes: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECIPE...", help="TOML files, or names of shipped ones.", autocompletion=complete.recipe
        ),
    ],
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Default: the recipe's own.")] = "",
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="K=V,V,...", help="A cell for each value, and each of the others. Repeatable."),
    ] = [],
    jobs: Annotated[int, typer.Option(metavar="N", help="Runs at a time.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: sweeps/RECIPE.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run what has failed again.")] = False,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of each run; default: the cores shared out.", min=1, max=1024)
    ] = None,
    device: DeviceOption = Device.AUTO,
    plugins: PluginsOption = [],
    slurm: Annotated[bool, typer.Option("--slurm", help="As jobs of a cluster (extra: slurm).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells, and stop; writes nothing.")] = False,
) -> None:
    """Run recipes with every combination of seeds and values; what is done already is skipped."""
    from lwmfw.sweep.folder import FAILED, SweepFolder, owned
    from lwmfw.sweep.grid import Grid, cells_of, parse_axes, parse_seeds
    from lwmfw.sweep.jobs import run_cells, start_here
    from lwmfw.sweep.slurm import start_on_cluster

    each = threads or (0 if slurm else max(1, _cores() // jobs))
    cells = cells_of(Grid(recipes, parse_axes(set_), parse_seeds(seeds), plugins, each))
    place = out or Path("sweeps") / "+".join(dict.fromkeys(cell.resolved.recipe.name for cell in cells))
    if dry_run:
        found = SweepFolder(place)
        print_table(["cell", "recipe", "seed", "state"], [_planned(found, cell) for cell in cells])
        return
    start = start_on_cluster(place / ".slurm", threads or 0) if slurm else start_here
    with owned(place) as folder:
        folder.freeze(cells, retry)
        left = [cell for cell in cells if not folder.run(cell).finished and (retry or folder.state(cell) != FAILED)]
        with _board(folder, cells) as board:
            run_cells(folder, left, jobs, device.value, start, board.tell)
        _tell_end(folder, cells, board.states)


def _cores() -> int:
    """How many cores this process may use."""
    from lwmfw.engine.threads import granted_cores

    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, granted_cores())


def _planned(folder: SweepFolder, cell: Cell) -> list[str]:
    recipe = cell.resolved.recipe
    return [cell.name, recipe.name, str(recipe.seed), folder.state(cell)]


def _tell_end(folder: SweepFolder, cells: Sequence[Cell], states: dict[str, str]) -> None:
    """The table of what is done; then, as an error, what is not.

    Raises:
        RunFailed: a cell has failed, or was interrupted by itself.
        RunBusy: another process is at work on a cell.
    """
    from lwmfw.sweep.folder import DONE, FAILED
    from lwmfw.sweep.jobs import BUSY

    done = [folder.run(cell) for cell in cells if states[cell.name] == DONE]
    if done:
        print_comparison(done)
    for cell in cells:
        if states[cell.name] == FAILED:
            tell(f"{cell.name}: failed: {folder.failure(cell)}")
    counts = Counter(states[cell.name] for cell in cells)
    said = f"{folder.path}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    if counts[FAILED]:
        raise RunFailed(f"{said}; mend what failed and run the same command with --retry")
    if counts[BUSY]:
        raise RunBusy(f"{said}: other processes have them; run the same command again when they have ended")
    if len(done) < len(cells):
        raise RunFailed(f"{said}; run the same command again")
    tell(said)


class _Board:
    """What has become of each cell: a line each, live on a terminal, else whenever it changes.

    How one has failed is told here on a terminal, where it is cut, and at the end in full.
    """

    def __init__(self, folder: SweepFolder, cells: Sequence[Cell], live: bool) -> None:
        self._folder, self._cells, self._live = folder, cells, live
        self.states = {cell.name: folder.state(cell) for cell in cells}

    def tell(self, cell: Cell, state: str) -> None:
        """Show that a cell is in another state."""
        self.states[cell.name] = state
        if not self._live:
            tell(f"{cell.name}: {state}")

    def _words(self, cell: Cell) -> str:
        from lwmfw.sweep.folder import FAILED
        from lwmfw.sweep.jobs import RUNNING

        state = self.states[cell.name]
        if state == FAILED:
            return f"{state}: {self._folder.failure(cell)}"
        return f"{state}  {self._folder.last_line(cell)}" if state == RUNNING else state

    def __rich__(self) -> Group:
        """A line for each cell, cut where the terminal ends."""
        from rich.console import Group
        from rich.text import Text

        width = max(len(cell.name) for cell in self._cells)
        lines = [f"{cell.name:<{width}}  {self._words(cell)}" for cell in self._cells]
        return Group(*(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines))


@contextmanager
def _board(folder: SweepFolder, cells: Sequence[Cell]) -> Iterator[_Board]:
    if not sys.stderr.isatty():
        yield _Board(folder, cells, live=False)
        return
    from rich.console import Console
    from rich.live import Live

    board = _Board(folder, cells, live=True)
    with Live(board, console=Console(stderr=True), refresh_per_second=2):
        yield board
