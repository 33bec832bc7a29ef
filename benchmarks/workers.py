"""What epochs over photographs cost when workers start by forkserver or spawn, as ratios to fork.

    python benchmarks/workers.py [--images 640] [--epochs 6] [--rounds 3]

Makes a folder of JPEG photographs of 500x400 pixels and times epochs of 224-pixel training batches of 32 without a
model, so that decoding is all there is; a model only hides it. Each round is a fresh process for each method, in turn:
the machine's other work falls on all of them. `steady` is the median of all epochs after a process's first; `with
start` is all epochs of a process, the start of its workers included. The least of the rounds is shown as well, being the one
that other work disturbed least.
"""

import argparse
import json
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


def epochs(paths: list[str], count: int) -> list[float]:
    """Seconds of each of several epochs."""
    files = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), 224, 256)
    loader = Loader(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 0, True)
    taken = []
    with kept_workers():
        for epoch in range(count):
            started = time.perf_counter()
            shape, rng = EpochShape(len(files), 0, 32), torch.Generator().manual_seed(epoch)
            for _ in loader.training_batches(files, shape, rng):
                pass
            taken.append(time.perf_counter() - started)
    return taken


def measured(method: str, root: Path, count: int) -> list[float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--method", method, "--root", str(root), "--epochs", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own command line
    return [float(seconds) for seconds in json.loads(done.stdout)]


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        multiprocessing.set_start_method(arguments.method)
        print(json.dumps(epochs(sorted(map(str, arguments.root.rglob("*.jpg"))), arguments.epochs)))
        return
    print(f"{worker_count()} workers, {arguments.images} images, {arguments.epochs} epochs, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), arguments.images)
        rounds = [
            {method: measured(method, Path(folder), arguments.epochs) for method in METHODS}
            for _ in range(arguments.rounds)
        ]
    steady = {m: [seconds for taken in rounds for seconds in taken[m][1:]] for m in METHODS}
    whole = {m: [sum(taken[m]) for taken in rounds] for m in METHODS}
    for name, times in (("steady epoch", steady), ("with start", whole)):
        for how in (statistics.median, min):
            base = how(times["fork"])
            found = ", ".join(f"{m} {how(times[m]):.2f} s ({how(times[m]) / base:.2f} x)" for m in METHODS)
            print(f"{name}, {how.__name__}: {found}", flush=True)


if __name__ == "__main__":
    main()
