"""What stops a run, told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lwmfw.assembly.blame import blamed
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import LwmfwError, RunFailed, describe


@contextmanager
def told_in_words(assembly: Assembly, path: Path) -> Iterator[None]:
    """Report what stops a training that is recorded at `path`, or its preparation, as the failure it is."""
    try:
        yield
    except LwmfwError:
        raise
    except torch.OutOfMemoryError as error:
        position = assembly.position
        raise RunFailed(f"out of device memory; the run stopped {position}; lower training.batch_size") from error
    except OSError as error:
        raise RunFailed(f"{error.filename or path}: {error.strerror or error}; the run stopped") from error
    except (Exception, SystemExit) as error:
        failure = blamed(assembly, error)
        if failure is None and isinstance(error, SystemExit):  # or the run would end as if nothing had happened
            failure = RunFailed(f"a component raised {describe(error)}; the run stopped {assembly.position}")
        if failure is None:
            raise
        raise failure from error
