"""What can go wrong, sorted by the exit code the command line gives it."""

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

FOREIGN = (Exception, SystemExit)
"""What the code of others can raise, where one goes on whatever it was; Ctrl-C goes through."""


class LwmfwError(Exception):
    """Base of every error that is reported in words rather than as a traceback."""

    exit_code = 3


class RunFailed(LwmfwError):  # noqa: N818 - named for what happened, as it is printed
    """The run itself failed: a loss that is not finite, or an error inside a plug-in."""

    exit_code = 1


class DiskFailed(RunFailed):
    """A file of the run cannot be written; what was kept before is as it was."""


class NotFinite(RunFailed):
    """A term of the loss, a weight, a feature or a score is inf or nan."""


LOWER = "start anew with a lower training.lr"
"""What a person can do: the run itself would come to the same number again."""


class UserError(LwmfwError):
    """Usage, recipe, missing data, or a plug-in that cannot be imported or attached.

    `keys`: the place in the recipe that is to blame, where the place in a file is not known yet.
    """

    exit_code = 2

    def __init__(self, message: str, keys: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class WrongAnswer(Exception):  # noqa: N818
    """A network does not answer as its kind has to, or raises, which is the cause then. Told as a failed run, in the
    name of the component it is of: that of a kind, or else the one that comes from the module of `part`."""

    def __init__(self, kind: str, fault: str, part: object = None) -> None:
        super().__init__(f"the {kind} {fault}")
        self.kind, self.part = kind, part


class CheckpointRefused(LwmfwError):  # noqa: N818
    """A file of a run that does not have the digest stated of it, or a run that would go on otherwise than it began."""

    exit_code = 4


class RunBusy(LwmfwError):  # noqa: N818
    """Another process owns the run directory."""

    exit_code = 5


class OutputFailed(LwmfwError):  # noqa: N818
    """What was to be printed cannot be: nobody reads on (141, as if SIGPIPE had ended it), or the disk is full (1)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(LwmfwError):  # noqa: N818
    """SIGINT (130), SIGTERM (143) or SIGHUP (129); what was learned up to the last checkpoint is kept."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
)
"""What errors of no type of their own say where an allocator has failed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator has failed: Python's, numpy's, torch's or the system's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _NO_MEMORY)


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and not endless."""
    try:
        return shown(" ".join(str(error).split()), 500)
    except Exception:  # a text that cannot be made is none
        return ""


def describe(error: BaseException) -> str:
    """An exception on one line, its type first."""
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def shown(text: str, limit: int = 80) -> str:
    """Foreign text as a message may hold it: on one line, printable, not endless."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


_MEDDLING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, colours it or turns the direction of text, and what is half a letter."""


def harmless(text: str) -> str:
    """Text of any length as a terminal may be given it; line breaks stay. What is escaped is so as in TOML and JSON."""
    return _MEDDLING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def command(verb: str, *words: object) -> str:
    """A command of ours as a message shows it: a shell takes it as it stands, whatever a path is called."""
    return f"`lwmfw {shlex.join([verb, *(shown(str(word), 1000) for word in words)])}`"


def quoted(value: object, limit: int = 60) -> str:
    """A foreign value as a message may hold it; one whose repr fails, by its type."""
    try:
        return shown(repr(value), limit)
    except FOREIGN:
        return f"a value of type {type(value).__name__}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message: "; did you mean 'L_AD'?", or nothing."""
    known = list(known)
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word, known, n=1) or [lower[name] for name in get_close_matches(word.lower(), lower, n=1)]
    return f"; did you mean '{close[0]}'?" if close else ""
