"""What a run borrows of the process that it is called in, and gives back: random generators and settings of torch."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch.backends import cudnn

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # which is set for the same bits on a GPU


@contextmanager
def given_back() -> Iterator[None]:
    """Whatever happens inside, an exception too, afterwards the process has the random numbers, threads and settings of
    torch that it had before."""
    back = [*_generators(), *_settings()]
    try:
        yield
    finally:
        for each in back:
            each()


def _generators() -> Iterator[Callable[[], object]]:
    yield partial(random.setstate, random.getstate())
    yield partial(np.random.set_state, np.random.get_state())
    yield partial(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():
        yield partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    else:  # what is not made yet begins with the seed of the CPU's
        yield partial(torch.cuda.manual_seed_all, torch.initial_seed())


def _settings() -> Iterator[Callable[[], object]]:
    yield partial(_use_threads, torch.get_num_threads())
    yield partial(torch.set_default_dtype, torch.get_default_dtype())
    yield partial(torch.set_grad_enabled, torch.is_grad_enabled())
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    yield partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled(), warn_only=warns)
    flags = [(cudnn, name) for name in ("enabled", "benchmark", "deterministic")]
    for place, name in [*flags, (torch.utils.deterministic, "fill_uninitialized_memory")]:
        yield partial(setattr, place, name, getattr(place, name))
    yield partial(_set_variable, os.environ.get(_CUBLAS))


def _use_threads(count: int) -> None:
    if count != torch.get_num_threads():
        torch.set_num_threads(count)


def _set_variable(value: str | None) -> None:
    if value is None:
        os.environ.pop(_CUBLAS, None)
    else:
        os.environ[_CUBLAS] = value
