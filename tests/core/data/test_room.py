"""What does not fit into memory is refused before it is decoded; an allocator that fails is told in words."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.pictures import put

from lwmfw import Penalty, UserError, check_room, hookimpl
from lwmfw.assembly.calls import Position
from lwmfw.data import room
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import RunFailed
from lwmfw.testing import tiny_run
from lwmfw_plugins.data.folder import OwnImages, OwnOptions

MEMINFO = "MemTotal:  16000 kB\nMemAvailable:  8000 kB\nSwapFree:  1000 kB\nHugePages_Total:  0\n"


@pytest.fixture
def system(monkeypatch):
    """The files in which a system tells what memory there is, by path; what is not there is empty."""
    files = {"/proc/meminfo": MEMINFO}
    monkeypatch.setattr(room, "_text", lambda file: files.get(str(file), ""))
    monkeypatch.setattr(room, "_address_space", lambda: math.inf)
    return files


def test_memory_is_what_is_left_and_what_limits_allow(system):
    assert room.free_memory() == 9000 * 1024
    system["/proc/self/cgroup"] = "4:memory:/job/7\n1:cpu:/\n0::/user/me\n"
    system["/sys/fs/cgroup/user/memory.max"] = "3072000\n"  # of the group around the process's own
    system["/sys/fs/cgroup/user/me/memory.max"] = "max\n"
    assert room.free_memory() == 4000 * 1024  # swap comes on top
    system["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "1024000"  # as a container shows it
    assert room.free_memory() == 2000 * 1024
    system.clear()
    assert room.free_memory() == math.inf


def test_images_are_refused_where_they_take_more_than_there_is_and_no_sooner(system):
    check_room(9000, (1, 32, 32))
    with pytest.raises(UserError, match=r"data: 9001 images of 1x32x32 take 0.01 GB of memory .* \"each epoch\""):
        check_room(9001, (1, 32, 32))


def test_no_file_is_opened_where_the_set_does_not_fit(system, tmp_path):
    for path in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        put(tmp_path / path, b"no image")
    options = {"root": str(tmp_path), "size": 1024}
    with pytest.raises(UserError, match=r"4 images of 3x1024x1024 take 0\.01 GB"):
        OwnImages(OwnOptions(decode="once", **options)).load()
    with pytest.raises(UserError, match="4 of 4 images cannot be read"):
        OwnImages(OwnOptions(decode="each epoch", **options)).load()


CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (CPU, "out of memory"),
        (MemoryError(), "out of memory"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of device memory"),
        (RuntimeError("CUDA error: out of memory"), "out of device memory"),
    ],
)
def test_an_allocator_that_fails_is_told_with_what_to_do(error, what):
    def told(position):
        with (
            pytest.raises((UserError, RunFailed)) as failure,
            told_in_words(SimpleNamespace(position=position), Path()),
        ):
            raise error
        assert failure.value.__cause__ is None  # no traceback
        return failure.value

    before, during = told(Position()), told(Position(step=2, epoch=1, batch=3))
    assert (before.exit_code, during.exit_code) == (2, 1)
    assert str(before).startswith(f'data: {what} before the first step; set data.decode = "each epoch"')
    assert str(during) == f"{what}; the run stopped in step 2, epoch 1, batch 3; lower training.batch_size"


def test_it_is_not_blamed_on_the_component_that_asked(tmp_path):
    class Hungry:
        """Asks for too much."""

        needs = frozenset({"old"})

        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self, old):
            raise CPU

    with pytest.raises(RunFailed, match=r"^out of memory; the run stopped in step 2"):
        tiny_run({"penalties": [{"use": "hungry"}]}, tmp_path, components=[Penalty("hungry", Hungry)])
