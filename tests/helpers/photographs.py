"""A run on photographs, and whether the processes that decode for it have ended."""

import time
from pathlib import Path

from helpers.pictures import make_folder


def photographs(codec="raw", **tables):
    """Tables of a run that trains on photographs with exemplars, two epochs a step."""
    root = Path("photographs").resolve()
    if not root.exists():
        make_folder(root, ["ant", "bee", "cat", "dog"], count=8)
    return {
        "data": {"use": "folder", "root": str(root), "size": 16, "decode": "each epoch"},
        "objective": {"use": "cross_entropy", "over": "seen"},
        "memory": {"budget": "3 per class", "select": {"use": "random"}, "codec": {"use": codec}},
        "training": {"epochs": 2, "batch_size": 4, "lr": 0.05},
        **tables,
    }


def gone(pids, seconds=20):
    """Whether processes have ended, or do so soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)
