"""The verb that begins a plug-in."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lwmfw.errors import harmless

app = typer.Typer(name="plugin", no_args_is_help=True, help="Begin a plug-in of your own.")


class Kind(StrEnum):
    """What a component can be; lwmfw.components says it too, and takes longer to import."""

    DATA = "data"
    BACKBONE = "backbone"
    CLASSIFIER = "classifier"
    OBJECTIVE = "objective"
    PENALTY = "penalty"
    PHASE = "phase"
    READOUT = "readout"
    SELECTOR = "selector"
    RATE = "rate"
    REFINER = "refiner"
    CODEC = "codec"
    OBSERVER = "observer"


@app.callback()
def _group() -> None:
    """Have `new` be named, though it is the only one."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the component; the package is lwmfw-NAME.")],
    kind: Annotated[Kind, typer.Option(metavar="KIND", help=f"What it is to be: {', '.join(Kind)}.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the package.")] = None,
) -> None:
    """Write a package with one component that works, its test, and a recipe that runs in seconds."""
    from lwmfw.authoring.new import begin, distribution_of
    from lwmfw.recipe.catalogue import discover

    folder = out or Path(distribution_of(name))
    for path in begin(name, kind.value, folder, discover()):
        print(harmless(str(path)))
    place = shlex.quote(str(folder))
    print(harmless(f"next:\n  pip install -e {shlex.quote(f'{folder}[test]')}\n  pytest {place}"))
    print(harmless(f"  lwmfw plugins {name}\n  lwmfw run {shlex.quote(str(folder / 'recipe.toml'))}"))
