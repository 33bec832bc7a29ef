"""Whether images fit into memory, asked before they are decoded; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from lwmfw.errors import UserError

REMEDY = 'set data.decode = "each epoch" where the set has it, or take fewer or smaller images'

_CGROUPS = Path("/sys/fs/cgroup")


def check_room(count: int, shape: tuple[int, int, int]) -> None:
    """Refuse images that cannot be in memory all at once, whatever else gives way.

    Args:
        count: how many.
        shape: of each, (C, H, W), of uint8.

    Raises:
        UserError: they take more than there is.
    """
    needed, there = count * math.prod(shape), free_memory()
    if needed > there:
        size = "x".join(map(str, shape))
        raise UserError(
            f"data: {count} images of {size} take {_gigabytes(needed)} of memory once they are decoded, and there are "
            f"{_gigabytes(there)}; {REMEDY}"
        )


def free_memory() -> float:
    """Bytes that this process can have at most: what the system has left, swap included, and no more than its limits.

    Infinite where the system does not tell.
    """
    found = {name: int(value.split()[0]) * 1024 for name, value in _pairs(_text(Path("/proc/meminfo")))}
    swap = found.get("SwapFree", 0)
    system = found["MemAvailable"] + swap if "MemAvailable" in found else math.inf
    return min(system, _address_space(), *(limit + swap for limit in _limits()), math.inf)


def _address_space() -> float:
    """What `ulimit -v` allows, of which some is taken already."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _limits() -> Iterator[float]:
    """Those of the control groups that this process is in, as of a container or of a batch system's job."""
    lines = [line.split(":", 2) for line in _text(Path("/proc/self/cgroup")).splitlines()]
    for root, name in ((_CGROUPS / kind, name) for _, kind, name in lines if kind in ("", "memory")):
        group = root / name.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
            limits = (_text(folder / file).strip() for file in ("memory.max", "memory.limit_in_bytes"))
            yield from (float(limit) for limit in limits if limit.isdecimal())


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.strip():
            yield name, value


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
