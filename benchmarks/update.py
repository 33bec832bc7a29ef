"""What one update of a method costs beside its floor: a plain update of the new model and a bare old forward.

    python benchmarks/update.py [--method lwm|podnet] [--precision fp32|bf16] [--pairs 50] [--threads N]

The method's network on 3x32x32, batch 128, channels-last on both sides; LwM with two classes a step, PODNet with 50 and
then 10. The two sides alternate in one process and only the ratio of each pair counts, because the machine's speed
drifts. The method's side takes its terms from the loop's `compute_terms`; what both sides would share (batches,
schedule, hooks, the sums of terms for the log) is left out. The old model of the floor is an ordinary copy in
evaluation mode, its BatchNorm not folded.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lwmfw.assembly.assemble import assemble
from lwmfw.data.loader import EpochShape
from lwmfw.engine.optimizer import build_optimizer
from lwmfw.engine.prepare import prepare
from lwmfw.engine.run import Run
from lwmfw.loop import compute_terms, objective_term
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe

METHODS = {
    "lwm": {
        "data": {"use": "synthetic", "classes": 4, "train_per_class": 64, "test_per_class": 1, "size": 32},
        "backbone": {"use": "resnet32", "width": 16},
        "penalties": [{"use": "L_D"}, {"use": "L_AD"}],
        "training": {"batch_size": 128},
    },
    "podnet": {
        "data": {"use": "synthetic", "classes": 60, "train_per_class": 13, "test_per_class": 1, "size": 32},
        "scenario": {"first": 50, "increment": 10},
        "backbone": {"use": "podnet32", "width": 16},
        "classifier": {"use": "proxies"},
        "objective": {"use": "nca"},
        "penalties": [{"use": "POD"}, {"use": "POD-flat"}],
        "training": {"batch_size": 128},
    },
}


def prepared(method: str, precision: str) -> Run:
    """A run of two steps whose model has seen the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_recipe(METHODS[method], Path(folder))
        run = prepare(assemble(load_recipe(path, {"training.precision": precision})), "cpu")
    run.model.grow(len(run.steps[0].new_classes))
    return run


def main() -> None:
    """Print medians and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="lwm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    run = prepared(arguments.method, arguments.precision)
    old, step = run.old_model(), run.steps[1]
    bare_old = copy.deepcopy(run.model).eval().requires_grad_(False)
    run.model.grow(len(step.new_classes))
    run.model.train()
    images = run.training_images(step)
    shape = EpochShape(len(images), 0, 128)
    batch = next(run.loader.training_batches(images, shape, torch.Generator().manual_seed(0)))
    phase = run.phases(step)[0]
    optimizer = build_optimizer(phase, run.model)

    def method() -> None:
        terms = compute_terms(run, step, phase, batch, old)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()

    def floor() -> None:
        (loss,) = objective_term(run, step, batch, run.model(batch.images)).values()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            bare_old(batch.images)

    def seconds(update) -> float:
        started = time.perf_counter()
        update()
        return time.perf_counter() - started

    for _ in range(5):
        method(), floor()
    pairs = [(seconds(method), seconds(floor)) for _ in range(arguments.pairs)]
    ours, theirs = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{arguments.precision}, {arguments.threads} threads, {arguments.pairs} pairs")
    print(f"{arguments.method} update {ours:.1f} ms, floor {theirs:.1f} ms, median ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
