"""The command line, in this process or as one of its own.

`lwmfw` is the way to start it. `lwmfw_process` costs an interpreter and an import of torch besides, and is for tests of
what only a process has: signals, locks against other processes, the code that a shell gets.
"""

import os
import signal
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch

from lwmfw.cli import main

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENVIRONMENT = {"COLUMNS": "120", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Answer:
    """What the command line did, in the words of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def lwmfw(*arguments, report=False):
    """Run the command in this process, which is left as it was, and return what it said.

    A run ends without its report, which takes longer than a tiny run, unless a test is about it.
    """
    with _as_it_was(), ExitStack() as streams:
        if not report:
            streams.enter_context(patch("lwmfw.cli.leave.report"))
        sys.argv = ["lwmfw", *map(str, arguments)]
        os.environ.update(ENVIRONMENT)
        stdout, stderr = (streams.enter_context(_captured(*stream)) for stream in ((1, "stdout"), (2, "stderr")))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, stdout(), stderr())


def lwmfw_process(*arguments):
    """Run the command as `python -m lwmfw`, and return what it said."""
    command = [sys.executable, "-m", "lwmfw", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT)


@contextmanager
def _as_it_was():
    """Afterwards the process has what a command may change in its own: nothing passes from one test to another."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    threads = torch.get_num_threads()
    with (
        patch.object(sys, "argv", sys.argv),
        patch.object(sys, "excepthook", sys.excepthook),  # typer sets its own
        patch.dict(os.environ),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        chdir("."),
    ):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _captured(number, name):
    """Send a stream to a file, also what C code writes past Python; gives the function that reads it."""
    stream, kept = getattr(sys, name), os.dup(number)
    stream.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)
        with (
            open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as written,
            patch.object(sys, name, written),
        ):

            def read():
                written.flush()
                return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()

            try:
                yield read
            finally:
                written.flush()
                os.dup2(kept, number)
                os.close(kept)
