"""What stops a run, told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lwmfw.assembly.blame import blamed
from lwmfw.assembly.parts import Assembly
from lwmfw.data.room import REMEDY
from lwmfw.errors import LwmfwError, RunFailed, UserError, describe, is_out_of_memory


@contextmanager
def told_in_words(assembly: Assembly, path: Path) -> Iterator[None]:
    """Report what stops a training that is recorded at `path`, or its preparation, as the failure it is."""
    try:
        yield
    except LwmfwError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(assembly, error) from None  # which line asked for too much says nothing
        if isinstance(error, OSError):
            raise RunFailed(f"{error.filename or path}: {error.strerror or error}; the run stopped") from error
        failure = blamed(assembly, error)
        if failure is None and isinstance(error, SystemExit):  # or the run would end as if nothing had happened
            failure = RunFailed(f"a component raised {describe(error)}; the run stopped {assembly.position}")
        if failure is None:
            raise
        raise failure from error


def _out_of_memory(assembly: Assembly, error: BaseException) -> LwmfwError:
    """The failure to report when an allocator has failed; before the first step it is the images that ask for most."""
    position, on_device = assembly.position, isinstance(error, torch.OutOfMemoryError) or "CU" in str(error)
    what = f"out of {'device ' if on_device else ''}memory"
    if position.step:
        return RunFailed(f"{what}; the run stopped {position}; lower training.batch_size")
    return UserError(f"data: {what} {position}; {REMEDY}{', or use --device cpu' if on_device else ''}")
