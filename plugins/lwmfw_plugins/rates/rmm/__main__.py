"""`python -m lwmfw_plugins.rates.rmm RECIPE`: search a policy of rmm for a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lwmfw import LwmfwError
from lwmfw_plugins.rates.rmm._search import best_of, climb, policy_of
from lwmfw_plugins.rates.rmm._trials import Device, Trials, opened, rate_line, resolved_recipe, tables_of, task_of

NAME = "python -m lwmfw_plugins.rates.rmm"
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Override a key of the recipe. Repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override the recipe's seed.", min=0)] = None,
    trials: Annotated[int, typer.Option(help="How many policies are tried at most.", min=1)] = 20,
    epochs: Annotated[int, typer.Option(help="Of each step of a trial; 0: a quarter of the recipe's.", min=0)] = 0,
    readout: Annotated[str, typer.Option(help="Whose accuracy counts; default: the recipe's first.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A new folder; default: runs/RECIPE-rmm.")] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")] = Device.AUTO,
) -> None:
    """Find what the rate rmm gives up and favours, on the classes of the recipe's first step."""
    given = [part for text in set_ or [] for part in ("--set", text)]
    text = resolved_recipe([recipe, *given, *(["--seed", str(seed)] if seed is not None else [])])
    tables = tables_of(text)
    task = task_of(tables, epochs=epochs, readout=readout)
    folder = out or Path("runs", f"{tables['name']}-rmm")
    file = opened(folder, text)
    _tell(
        f"search of {tables['name']}, seed {tables['seed']}: {task.settings['scenario.first']} classes, then "
        f"{task.steps} steps of {task.settings['scenario.increment']}, {trials} trials at most, recorded in {folder}"
    )
    found = climb(Trials(file, task, folder, device, _tell).reward, task.steps, trials)
    print(rate_line(policy_of(best_of(found))))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Search, and exit with the code of what happened."""
    try:
        app(prog_name=NAME)
    except LwmfwError as error:
        _tell(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
