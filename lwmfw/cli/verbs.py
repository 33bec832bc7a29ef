"""The verbs of the command line and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from lwmfw.cli import act, ask, author, grow, look, sweep, use

app = typer.Typer(
    name="lwmfw",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: tuple[Callable[..., None], ...] = (
    *(act.run, act.search, act.resume, sweep.sweep),
    *(use.predict, use.export),
    *(ask.check, ask.show, ask.recipes, ask.plugins, ask.hooks, ask.schema),
    *(look.compare, look.report, look.plot, look.explain),
    *(grow.adopt, grow.extend, grow.verify, grow.merge, grow.retract),
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(author.app)


def _version(wanted: bool) -> None:
    if wanted:
        from lwmfw import __version__

        print(f"lwmfw {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Class-incremental image classification: run recipes, mix components, write plug-ins."""
