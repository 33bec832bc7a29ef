"""Images a second and peak memory of mnemonics beside a straightforward unrolled loop that keeps every graph.

    python benchmarks/mnemonics.py [--unrolled 3] [--batch 64] [--queries 256] [--iterations 3] [--rounds 3]

1000 exemplars of 50 classes, 3x32x32, resnet32. The straightforward loop differentiates through all steps at once, in
float32, with the layout and the BatchNorm (evaluation mode) that a model has when nothing is done about them.
Mnemonics takes one step's graph at a time, channels-last, BatchNorm folded, in float32 and in bfloat16. All take the
same steps on equally many images. Each side runs in a process of its own, in turns; medians of the rounds. An image
counts once for every time that it is shown.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from lwmfw import Images
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.prepare import prepare
from lwmfw.engine.run import Run
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe
from lwmfw_plugins.refiners.mnemonics import MnemonicsOptions
from lwmfw_plugins.refiners.mnemonics._gradients import by_unrolling, loss_on

CLASSES, PER_CLASS = 50, 20
SIDES = {"straightforward": "fp32", "mnemonics": "fp32", "mnemonics bf16": "bf16"}
TABLES = {
    "data": {"use": "synthetic", "classes": CLASSES, "train_per_class": 100, "test_per_class": 1, "size": 32},
    "scenario": {"first": CLASSES, "increment": 0},
    "backbone": {"use": "resnet32", "width": 16},
    "objective": {"use": "cross_entropy"},
}


def prepared(precision: str) -> Run:
    """A run whose model has all classes and statistics of its images."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(tiny_recipe(TABLES, Path(folder)), {"training.precision": precision})
        run = prepare(assemble(recipe), "cpu")
    run.model.grow(CLASSES)
    with torch.no_grad():
        run.model(run.loader.normalise(run.data.train.pixels[::20]))
    return run


def straightforward(run: Run, exemplars: Images, options: MnemonicsOptions, rng: torch.Generator) -> Tensor:
    """The gradient with the graphs of all steps alive at once."""
    model = run.model
    pixels = exemplars.pixels.float().requires_grad_()
    order = torch.randperm(len(exemplars), generator=rng)[: options.unrolled * options.batch_size]
    losses = [loss_on(model, run.loader, exemplars.labels, i, rng) for i in order.split(options.batch_size)]
    asked = torch.randint(len(run.data.train), (options.queries,), generator=rng)
    theta = dict(model.named_parameters())
    for loss in losses:
        slopes = torch.autograd.grad(loss(theta, pixels), list(theta.values()), create_graph=True)
        theta = {name: p - options.inner_lr * slope for (name, p), slope in zip(theta.items(), slopes, strict=True)}
    outer = loss_on(model, run.loader, run.data.train.labels, asked, rng)(theta, run.data.train.pixels)
    return torch.autograd.grad(outer, pixels)[0]


def measure(side: str, options: MnemonicsOptions) -> dict[str, float]:
    """Images a second and peak memory in MB of this process."""
    run = prepared(SIDES[side])
    chosen = torch.cat([torch.arange(PER_CLASS) + 100 * c for c in range(CLASSES)])
    exemplars, rng = run.data.train.select(chosen), torch.Generator().manual_seed(0)
    if side == "straightforward":
        run.model.eval().to(memory_format=torch.contiguous_format)
        ask = lambda pixels: straightforward(run, exemplars, options, rng)  # noqa: E731
    else:
        ask = by_unrolling(run, exemplars.labels, run.data.train, options, rng)
    ask(exemplars.pixels.float())
    started = time.perf_counter()
    for _ in range(options.iterations):
        ask(exemplars.pixels.float())
    seconds = time.perf_counter() - started
    shown = options.iterations * (options.unrolled * options.batch_size + options.queries)
    return {"images_per_s": shown / seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unrolled", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    options = MnemonicsOptions(
        unrolled=given.unrolled, batch_size=given.batch, queries=given.queries, iterations=given.iterations
    )
    if given.side:
        print(json.dumps(measure(given.side, options)))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side in SIDES:
            again = [sys.executable, *sys.argv, "--side", side]
            printed = subprocess.run(again, check=True, capture_output=True, text=True).stdout  # noqa: S603
            found[side].append(json.loads(printed))
    steps = f"{options.unrolled} steps of {options.batch_size} exemplars, {options.queries} queries"
    print(f"{steps}, {torch.get_num_threads()} threads")
    floor = statistics.median(row["images_per_s"] for row in found["straightforward"])
    for side, rows in found.items():
        speed = statistics.median(row["images_per_s"] for row in rows)
        print(f"{side:16} {speed:7.0f} images/s  x {speed / floor:.2f}  peak {max(row['mb'] for row in rows):.0f} MB")


if __name__ == "__main__":
    main()
