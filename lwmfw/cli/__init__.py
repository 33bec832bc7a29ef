"""The command line: thin verbs over the library. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from lwmfw.cli import act, ask, grow, use
from lwmfw.cli.letters import take_any_letter
from lwmfw.errors import LwmfwError

app = typer.Typer(
    name="lwmfw",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: tuple[Callable[..., None], ...] = (
    *(act.run, act.search, act.resume),
    *(use.predict, use.export),
    *(ask.check, ask.show, ask.recipes, ask.plugins, ask.hooks, ask.schema, ask.compare),
    *(grow.adopt, grow.extend, grow.verify, grow.merge, grow.retract),
)
for verb in VERBS:
    app.command()(verb)


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    take_any_letter()
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
        from lwmfw import __version__

        print(f"lwmfw {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Class-incremental image classification: run recipes, mix components, write plug-ins."""
