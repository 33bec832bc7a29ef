"""What herding the exemplars of many classes takes, their features given.

    python benchmarks/herding.py [--classes 50] [--images 500] [--features 64] [--exemplars 2000]

Prints the median of several rounds, for the paper's form and for the authors' code's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lwmfw_plugins.selectors.herding import herd, herd_as_coded

ROUNDS = 7


def seconds(rank: Callable[[Tensor, int], Tensor], classes: Tensor, count: int) -> float:
    """Median time in which `count` exemplars of each of the classes (classes, n, D) are chosen."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for features in classes:
            rank(normalize(features.double()), count)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Print the seconds of both forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("classes", 50), ("images", 500), ("features", 64), ("exemplars", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    rng = torch.Generator().manual_seed(0)
    classes = torch.rand(wanted.classes, wanted.images, wanted.features, generator=rng)
    count = wanted.exemplars // wanted.classes
    print(
        f"{count} exemplars of each of {wanted.classes} classes of {wanted.images} images, {wanted.features} features"
    )
    for rank in (herd, herd_as_coded):
        print(f"{rank.__name__}: {seconds(rank, classes, count):.3f} s")


if __name__ == "__main__":
    main()
