"""What is told of a run, in a file besides: plain lines with times."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lwmfw.errors import UserError, describe

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
    """Append to a file what is told inside, and how it ended; None: to none.

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
    except Exception as error:
        LOGGER.error(str(error) or describe(error))
        raise
    finally:
        LOGGER.setLevel(before)
        LOGGER.removeHandler(handler)
        with suppress(OSError):
            handler.close()
