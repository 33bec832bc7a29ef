"""What the process of a command owes to those around it: signals that end it in words, streams whose reader may go.

Only the standard library is imported here, so that this holds before anything else is.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from lwmfw.errors import Interrupted, LwmfwError, OutputFailed, UserError
from lwmfw.stopping import STOP

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_PATIENCE = 2
"""Seconds in which a signal that comes again is the same one: a terminal that closes, or a scheduler, sends several."""
_MOMENT = 8
"""Seconds that a run at work has for writing down where it is."""
_AGAIN = 1.0
"""Seconds after which an interruption that other code has swallowed, as some does when it is loaded, comes again."""


class _Interruption(KeyboardInterrupt):
    """Ctrl-C. Where its base itself comes up through C code, the interpreter holds it to be unhandled, whatever becomes
    of it: `python -m` would end by SIGINT."""


def ending_signals() -> list[signal.Signals]:
    """The signals that end a command here; not those that `nohup` or a background job ignores."""
    known = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat what ends a process as Ctrl-C, and exit with the code that shells expect of the signal.

    Raises:
        Interrupted: a signal came; whatever else it has become on its way up through the code of others.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone hears of signals
        yield
        return
    received: list[int] = []
    came, stack = 0.0, ExitStack()

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not received:
            received.append(number)
            came = time.monotonic()
            stack.enter_context(_insisting(_MOMENT if STOP.waits else _AGAIN))
            if not STOP.waits:
                raise _Interruption
            STOP.wished = True  # a run at work writes down where it is, and stops
        if time.monotonic() - came > _PATIENCE:
            os._exit(128 + number)  # files are whole or absent at any moment

    signals = ending_signals()
    try:
        with stack:
            for number in signals:
                signal.signal(number, stop)
            yield
    except BaseException as error:
        if not received or (isinstance(error, SystemExit) and not error.code):
            raise
        if STOP.wished and isinstance(error, LwmfwError) and not isinstance(error, Interrupted):
            raise  # the run has failed by itself before it could stop
        said = str(error) if isinstance(error, Interrupted) else _INTERRUPTED
        raise Interrupted(said, 128 + received[0]) from None
    finally:
        for number in signals:  # what comes now finds nothing to tell
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _insisting(first: float) -> Iterator[None]:
    """Interrupt again, after so many seconds first, whatever goes on as if nothing had happened."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def again(number: int, frame: FrameType | None) -> None:
        error = sys.exception()
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        if error is None:  # nobody is ending anything
            raise _Interruption

    before, timer = signal.signal(signal.SIGALRM, again), signal.setitimer(signal.ITIMER_REAL, first, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


_INTERRUPTED = "interrupted; no file is left half written; run the same command again"


class _Stream(io.FileIO):
    """The bytes of a standard stream. That they cannot be written is raised once, where it is to be told at all."""

    def __init__(self, number: int, told: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._told = told

    def write(self, data: ReadableBuffer, /) -> int:
        count = memoryview(data).nbytes
        try:
            return super().write(data) or count
        except OSError as error:
            if not self._told:
                return count
            self._told = False
            code = 128 + 13 if error.errno == errno.EPIPE else 1  # the number of SIGPIPE
            said = f"standard output: {error.strerror}; free some space or print elsewhere"
            raise OutputFailed(said, code) from error


def share_cores() -> None:
    """Have threads that wait for one another sleep soon, unless the environment says how they are to wait.

    By default they spin, which is no faster here, and up to ten times slower beside a process that wants the core. Read
    once, when torch is loaded; the bits are the same.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def check_folder() -> None:
    """See that there is a current folder, which libraries want to know when they are loaded.

    Raises:
        UserError: it was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f".: the current folder is gone ({error.strerror}); change to one that is there") from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Streams that may be closed, or end before the command does.

    Progress that nobody can read any more is dropped, and what is under way goes on. Of results it is told.

    Raises:
        OutputFailed: standard output cannot be written.
    """
    _fill_gaps()
    before = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = _standing(sys.stdout, 1), _standing(sys.stderr, 2)
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_gaps() -> None:
    """Have the numbers of closed standard streams lead nowhere, before a file of ours gets one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _standing(stream: TextIO | None, number: int) -> TextIO:
    """A stream as one that stands a reader's end; one that is no stream of the process, such as a test's, stays."""
    if stream is not None:
        try:
            if stream.fileno() != number:
                return stream
        except (OSError, ValueError, AttributeError):
            return stream
        stream.flush()
    encoding = stream.encoding if stream else "utf-8"
    errors = (stream.errors if stream else None) or "backslashreplace"
    raw = io.BufferedWriter(_Stream(number, told=number == 1))
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=number == 2 or raw.isatty())
