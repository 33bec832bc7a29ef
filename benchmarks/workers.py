"""What epochs over photographs cost when workers start by forkserver or spawn, as ratios to fork.

    python benchmarks/workers.py [--images 640] [--epochs 12]

Makes a folder of JPEG photographs of 500x400 pixels and times epochs of 224-pixel training batches of 32 without a
model, so that decoding is all there is; a model would hide it. Every method has a process of its own, and they take
turns, an epoch each, so that other work of the machine falls on all of them. A ratio is the median of those of epochs
of one turn; the first epoch, in which the workers start, is shown apart and counts in `with start` only.
"""

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from memory import make_photographs

from lwmfw import ImageFiles
from lwmfw.data.loader import EpochShape, Loader
from lwmfw.data.workers import kept_workers, worker_count

METHODS = ("fork", "forkserver", "spawn")


def take_turns(root: Path) -> None:
    """For every line on stdin, one epoch; its seconds on stdout."""
    paths = sorted(map(str, root.rglob("*.jpg")))
    files = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), 224, 256)
    loader = Loader(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 0, True)
    with kept_workers():
        for epoch, _ in enumerate(sys.stdin):
            started = time.perf_counter()
            shape, rng = EpochShape(len(files), 0, 32), torch.Generator().manual_seed(epoch)
            for _ in loader.training_batches(files, shape, rng):
                pass
            print(time.perf_counter() - started, flush=True)


def timed(root: Path, count: int) -> dict[str, list[float]]:
    """Seconds of each method's epochs."""
    command = [sys.executable, __file__, "--root", str(root), "--method"]
    processes = {
        m: subprocess.Popen([*command, m], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for m in METHODS
    }
    taken: dict[str, list[float]] = {m: [] for m in METHODS}
    for _ in range(count):
        for method, process in processes.items():
            print(file=process.stdin, flush=True)
            taken[method].append(float(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    return taken


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        multiprocessing.set_start_method(arguments.method)
        take_turns(arguments.root)
        return
    print(f"{worker_count()} workers, {arguments.images} images, {arguments.epochs} epochs each")
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), arguments.images)
        taken = timed(Path(folder), arguments.epochs)
    for method, seconds in taken.items():
        first, *steady = seconds
        ratio = statistics.median(own / fork for own, fork in zip(steady, taken["fork"][1:], strict=True))
        print(
            f"{method}: first epoch {first:.2f} s, then {statistics.median(steady):.2f} s, {ratio:.2f} x fork; "
            f"with start {sum(seconds) / sum(taken['fork']):.2f} x fork"
        )


if __name__ == "__main__":
    main()
