"""What it costs to keep where a run is, with 2000 exemplars.

    python benchmarks/saving.py [--saves 10] [--folder DIR]

resnet18 and resnet32 with 2000 raw exemplars of 3x32x32, after one update of SGD with momentum: looking for numbers
that are not finite, a copy of everything, SHA-256, and files that are on the disk.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lwmfw.api import prepared_run
from lwmfw.assembly.assemble import assemble
from lwmfw.engine import kept
from lwmfw.engine.build import grow
from lwmfw.engine.optimizer import build_optimizer, build_schedule
from lwmfw.engine.progress import USUAL
from lwmfw.engine.run import Run
from lwmfw.memory.exemplars import keep_exemplars
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe
from lwmfw.testing.tiny import TINY

RECIPE = {
    "data": {"use": "synthetic", "classes": 100, "train_per_class": 20, "test_per_class": 1, "size": 32},
    "scenario": {"first": 100, "increment": 1},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "2000 exemplars", "select": {"use": "random"}},
}
NETWORKS = {"resnet18": {"use": "resnet18"}, "resnet32": {"use": "resnet32"}}


def prepared(network: str, folder: Path) -> tuple[Run, dict[str, object]]:
    """A run with its memory filled, and what is kept of it inside a phase."""
    TINY["backbone"] = NETWORKS[network]  # whose options are others than those of the tiny recipe's network
    run = prepared_run(assemble(load_recipe(tiny_recipe(RECIPE, folder))), "cpu", None)
    (step,) = run.steps
    grow(run.assembly, run.model, step)
    keep_exemplars(run, step, run.data.train)
    phase = run.phases(step)[0]
    optimizer = build_optimizer(phase, run.model, (), run.assembly)
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    descent = kept.Descent(optimizer, build_schedule(phase, optimizer, 100))
    return run, kept.stateful(run) | {"[random]": kept.Generators(run), "[descent]": descent}


def timed(act: Callable[[], object], times: int) -> Iterator[float]:
    """Seconds of each."""
    for _ in range(times):
        started = time.perf_counter()
        act()
        yield time.perf_counter() - started


def saved(network: str, folder: Path, times: int) -> tuple[list[float], int]:
    """Seconds of each save of a place inside a step, and its bytes."""
    run, parts = prepared(network, folder)
    place = folder / "checkpoints"

    def save() -> None:
        run.progress.look()
        now = checkpoint.take(run.model, parts, run.results, kept.facts(run))
        checkpoint.save_inside(place, now, 1, 1)

    return list(timed(save, times)), sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def main() -> None:
    """Print medians, worst cases and shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="on the disk that runs are written to")
    arguments = parser.parse_args()
    for network in NETWORKS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            seconds, size = saved(network, Path(name), arguments.saves)
        median, worst = statistics.median(seconds), max(seconds)
        share = f"every {USUAL.seconds / 60:g} min that is {median / USUAL.seconds:.3%} of the time"
        print(f"{network}: {size / 1e6:.0f} MB, {median:.3f} s, at most {worst:.3f} s; {share}")


if __name__ == "__main__":
    main()
