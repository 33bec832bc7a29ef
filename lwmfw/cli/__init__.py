"""The command line: thin verbs over the library. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import errno
import os
import sys

from lwmfw.cli.letters import take_any_letter, tell
from lwmfw.cli.process import check_folder, interruptible, share_cores, standard_streams
from lwmfw.errors import LwmfwError, OutputFailed, shown

_BARRED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What is no fault of a verb that asks whether a place is there: nobody may look, or no place has such a name."""


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    share_cores()
    with standard_streams():
        take_any_letter()
        sys.exit(_told())


def _told() -> int:
    """Run a verb, say what went wrong, and return the exit code."""
    try:
        with interruptible():
            _run()
    except OutputFailed as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            tell(str(error))
        return error.exit_code
    except LwmfwError as error:
        cause = error.__cause__
        if error.exit_code == 1 and cause is not None:
            _trace(cause)
        tell(str(error))
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _BARRED and error.filename:
            tell(f"{shown(os.fsdecode(error.filename), 1000)}: {error.strerror}; name another place, or have it opened")
            return 2
        _trace(error)
        print("lwmfw: this is a bug of lwmfw, please report it with the lines above", file=sys.stderr)
        return 3
    return 0


def _trace(error: BaseException) -> None:
    import traceback

    tell("".join(traceback.format_exception(error)).removesuffix("\n"))


def _run() -> None:
    check_folder()
    from lwmfw.cli.verbs import app  # a signal that comes meanwhile is told like any other

    try:
        app(prog_name="lwmfw")  # however it was started: what a shell completes goes by that name
    finally:
        sys.stdout.flush()
