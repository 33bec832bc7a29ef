"""How many threads a run computes with: another number changes the order of sums, thus the last bits."""

from __future__ import annotations

from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use of the processor, where it is limited: microseconds in a period, and the period."""


def use_threads(count: int) -> None:
    """Compute with `count` threads; 0: as many as this process may use.

    That is one for each core that it may run on (`taskset`), or what OMP_NUM_THREADS says, and no more than a container
    may use. It does not depend on how busy the cores are: the same command gives the same bits.
    """
    import torch

    count = count or min(torch.get_num_threads(), granted_cores())
    if count != torch.get_num_threads():
        torch.set_num_threads(count)


def granted_cores() -> int:
    """How many cores' worth of time the container grants; 1024: there is no limit."""
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # no container, another system, or "max"
        return 1024
    return max(1, quota // period)
