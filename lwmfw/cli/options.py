"""Arguments and options that several verbs have, and the recipe they name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwmfw.cli import complete

if TYPE_CHECKING:
    from lwmfw.recipe.load import Resolved


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
    JSON = "json"
    LATEX = "latex"
    MARKDOWN = "markdown"


RecipeArgument = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", help="TOML file, or the name of a shipped one.", autocompletion=complete.recipe),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", autocompletion=complete.run)]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Run directories, or results.json files.", autocompletion=complete.run),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="K=V", help="Override a key, as in training.epochs=5. Repeatable."),
]
SeedOption = Annotated[int | None, typer.Option(help="Override the recipe's seed.", min=0)]
PluginsOption = Annotated[
    list[Path], typer.Option("--plugins", metavar="PATH", help="A plug-in file to load besides. Repeatable.")
]
SaveOption = Annotated[
    str, typer.Option("--save-every", metavar="TIME", help='How often a step is kept: "10 min" or "500 updates".')
]
KeepOption = Annotated[
    bool,
    typer.Option("--keep-steps", help="Keep the model of every step, for `explain`; else of the first and the last."),
]
DriftOption = Annotated[
    list[str],
    typer.Option(
        metavar="KEY", help="Go on with other arithmetic, data, plugins or torch than it was begun with. Repeatable."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Of the processor; another number changes the last bits.", min=1, max=1024),
]
LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Append progress to a file, in plain lines with times.")
]
ReadoutOption = Annotated[
    str, typer.Option(metavar="NAME", help="Which read-out decides; default: the recipe's first.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")]


def load(
    recipe: Path,
    settings: list[str],
    seed: int | None,
    plugins: list[Path],
) -> Resolved:
    from lwmfw.recipe import shipped
    from lwmfw.recipe.load import load_recipe
    from lwmfw.recipe.settings import parse_settings

    return load_recipe(shipped.locate(recipe), parse_settings(settings), seed=seed, plugins=plugins)
