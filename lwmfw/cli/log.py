"""What is told of a run, in a file besides: plain lines with times."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw.errors import UserError, describe, harmless

if TYPE_CHECKING:
    from lwmfw.engine.run import Run

LOGGER = logging.getLogger("lwmfw")
"""Where progress is told besides; a program that uses lwmfw as a library may listen to it too."""


class _LogFile(logging.FileHandler):
    """A file that may become full; that is said once, and costs no run."""

    full = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
        if not self.full:
            print(f"{self.baseFilename}: {describe(sys.exception() or OSError())}; the run goes on", file=sys.stderr)
        self.full = True


@contextmanager
def logged(file: Path | None) -> Iterator[None]:
    """Append to a file what is told inside, and what error ended it; None: to none.

    Raises:
        UserError: it cannot be written.
    """
    if file is None:
        yield
        return
    try:
        handler = _LogFile(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"--log {file}: {error.strerror}; name another file") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    before = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or describe(error)
        for line in harmless(said).splitlines():
            LOGGER.error(line)
        raise
    finally:
        LOGGER.setLevel(before)
        LOGGER.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def check_heard(file: Path | None, tables: Mapping[str, Any]) -> None:
    """See that a log would have something to hold; a recipe's tables may be empty, which another will say.

    Raises:
        UserError: the recipe has no console, whose lines they are.
    """
    from lwmfw.recipe.tables import is_console

    observers = tables.get("observers")
    if file and isinstance(observers, list) and not any(map(is_console, observers)):
        raise UserError(
            f"--log {file}: the recipe has no console, whose lines a log holds; leave --log out, or list "
            '[[observers]] with use = "console"'
        )


def tell_end(done: Run) -> None:
    """Tell a log that a run is whole, where it is, and its last accuracy by read-out."""
    place = f"{done.directory.path}: " if done.directory else ""
    accuracy = {who: value for who, value in done.results.last_accuracy.items() if value is not None}
    last = "".join(f", {who} {value:.3f}" for who, value in accuracy.items())
    LOGGER.info(harmless(f"{place}finished{last}"))
