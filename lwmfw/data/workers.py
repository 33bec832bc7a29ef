"""Processes that decode: started when they are first needed, alive as long as a run, fed in order and never far ahead.

They start as the program says (`multiprocessing.set_start_method`), else as the platform's Python does: by fork on
Linux up to 3.13, which takes no time and shares what is loaded; by forkserver on Linux from 3.14, by spawn on macOS and
Windows, where a fork of a process with threads is not safe. A start of the last two imports torch in every worker,
which is why they live on. What becomes of a batch is the same in any process, so none of this changes a bit.

Tensors come back in shared memory: for 128 images of 224 pixels that costs the main process a fifth of what bytes
through a pipe cost it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch

from lwmfw.errors import RunFailed

WORKERS = 8  # more rarely pay: the disk or the device is the limit by then
_AHEAD = 2  # batches that are under way for each worker
_GRACE = 2  # seconds
_SIGNALS = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if hasattr(signal, "SIGHUP") else set())

T = TypeVar("T")
R = TypeVar("R")


def worker_count() -> int:
    """Processes to decode with: one for each core this process may use, up to WORKERS.

    None with one core, where a worker is no faster than this process (measured) and takes memory, and none in a
    daemonic process, such as a worker of multiprocessing.Pool, which may not have children.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 or multiprocessing.current_process().daemon else min(WORKERS, cores)


def start_method() -> str:
    """What the program has set, else the platform's default; asking does not settle it."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


class Carried:
    """An object that goes to workers as far as it can.

    It is pickled once. Where that fails, or a worker cannot make it of the pickle - a spawned one does not know the
    classes of plug-in files -, the worker finds None and leaves to the main process what it needs the object for.

    Attributes:
        content: the object, or None.
    """

    def __init__(self, content: Any = None) -> None:
        self.content = content

    @cached_property
    def _pickled(self) -> bytes | None:
        try:
            return pickle.dumps(self.content)
        except (Exception, SystemExit):  # of any kind, as the object raises
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._pickled,)


@lru_cache(maxsize=1)  # it comes with every batch
def _arrived(pickled: bytes | None) -> Carried:
    try:
        return Carried(pickle.loads(pickled)) if pickled else Carried()  # noqa: S301 - from our own main process
    except (Exception, SystemExit):  # of any kind, as the class or its module raises
        return Carried()


class Workers:
    """Worker processes of this process, started with the first batch."""

    def __init__(self, count: int) -> None:
        self._count, self._owner = count, os.getpid()
        self._pool: ProcessPoolExecutor | None = None

    @property
    def usable(self) -> bool:
        """Whether they belong to this process rather than to the one it was forked from."""
        return self._owner == os.getpid()

    def submit(self, work: Callable[[T], R], batch: T) -> Future[R]:
        """Have a worker do `work` on a batch."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._count, multiprocessing.get_context(start_method()), _begin)
            with warnings.catch_warnings(), _held_back():
                # the first call forks all workers, which then only decode, with torch on one thread
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
                self._pool.submit(os.getpid)
        with _held_back():
            return self._pool.submit(work, batch)

    def close(self) -> None:
        """End them; they start again if they are needed again."""
        pool, self._pool = self._pool, None
        if pool is not None and self.usable:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait, also in processes started here, which see to them in `_begin`."""
    # a server of forks would hand the blocked signals on to other people's processes; Windows has no such thing
    if start_method() == "forkserver" or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Make a process a worker: one thread, no opinion on Ctrl-C, and no longer alive than its parent."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # a signal to the whole group has reached the parent too, which should not see its workers die before it
        for number in _SIGNALS - {signal.SIGINT}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, lambda *_: signal.alarm(_GRACE))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_KEPT: ContextVar[Workers | None] = ContextVar("_KEPT", default=None)


@contextmanager
def kept_workers() -> Iterator[None]:
    """Whatever is decoded inside shares workers, which live to its end; inside another one it changes nothing."""
    kept = _KEPT.get()
    if kept is not None and kept.usable:
        yield
        return
    workers = Workers(worker_count())
    before = _KEPT.set(workers)
    try:
        yield
    finally:
        _KEPT.reset(before)
        workers.close()


@contextmanager
def _own_workers(count: int) -> Iterator[Workers]:
    workers = Workers(count)
    try:
        yield workers
    finally:
        workers.close()


def in_workers(
    work: Callable[[Sequence[T]], R], batches: Iterable[Sequence[T]], count: int
) -> Iterator[tuple[Sequence[T], R]]:
    """Each of `count` batches and what `work` makes of it, done by workers ahead of its use, in order.

    A single batch is done here, and all are where there is nobody else to do them.

    Args:
        work: can be pickled, and does the same in any process.
        batches: can be pickled.
        count: how many there are.

    Raises:
        RunFailed: a worker died.
    """
    workers = min(worker_count(), count) if count > 1 else 0
    if not workers:
        yield from ((batch, work(batch)) for batch in batches)
        return
    pickle.dumps(work)  # what a codec's own pickling does is not for the pool's thread, which would be gone with it
    kept = _KEPT.get()
    with nullcontext(kept) if kept is not None and kept.usable else _own_workers(workers) as pool:
        under_way: deque[tuple[Sequence[T], Future[R]]] = deque()
        try:
            for batch in batches:
                under_way.append((batch, pool.submit(work, batch)))
                if len(under_way) > _AHEAD * workers:
                    done, result = under_way.popleft()
                    yield done, result.result()
            while under_way:
                done, result = under_way.popleft()
                yield done, result.result()
        except BrokenProcessPool as error:
            pool.close()
            raise RunFailed(_death()) from error
        finally:
            for _, result in under_way:
                result.cancel()


def _death() -> str:
    words = "data: a decoding process died; see that there is memory, also in /dev/shm"
    if start_method() == "fork":
        return words
    return f'{words}, and that a script starts its run under `if __name__ == "__main__":`'
