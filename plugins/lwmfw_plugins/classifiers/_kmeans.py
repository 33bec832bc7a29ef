"""k-means: Lloyd's iterations from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def k_means(features: Tensor, clusters: int, rng: Generator, iterations: int = 100) -> Tensor:
    """Centres that few points are far from: a local minimum of the summed squared distances to the nearest one.

    A centre that loses all of its points starts again at the point farthest from its own centre, so the sum never grows
    and no centre is wasted. Fewer points than clusters are all centres, repeated in turn.

    Args:
        features: (n, D), n at least 1, on the CPU.
        clusters: K, at least 1.
        rng: of the seeds; a CPU generator.
        iterations: at most so many; it ends before when nothing moves any more.

    Returns:
        (K, D).
    """
    if len(features) < clusters:
        return features[torch.arange(clusters) % len(features)]
    centres = seeds(features, clusters, rng)
    for _ in range(iterations):
        before, centres = centres, moved(features, centres)
        if torch.equal(before, centres):
            break
    return centres


def seeds(features: Tensor, clusters: int, rng: Generator) -> Tensor:
    """k-means++: points (K, D), each drawn in proportion to its squared distance from those drawn before it."""
    chosen = torch.randint(len(features), (1,), generator=rng)
    for _ in range(1, clusters):
        distance = squared_distances(features, features[chosen]).amin(1)
        # the winner of a race of exponential clocks is drawn in proportion to their rates, also if all are zero
        race = distance / torch.empty_like(distance).exponential_(generator=rng)
        chosen = torch.cat([chosen, race.argmax()[None]])
    return features[chosen]


def moved(features: Tensor, centres: Tensor) -> Tensor:
    """One iteration: each centre (K, D) becomes the mean of the points that are nearest to it."""
    distance, nearest = squared_distances(features, centres).min(1)
    counts = torch.bincount(nearest, minlength=len(centres))
    means = torch.zeros_like(centres).index_add_(0, nearest, features) / counts.clamp(min=1)[:, None]
    empty = counts == 0
    means[empty] = features[distance.topk(int(empty.sum())).indices]
    return means


def squared_distances(features: Tensor, centres: Tensor) -> Tensor:
    """(n, K) of points (n, D) and centres (K, D); exactly zero where they are equal."""
    # the product form of cdist would be faster, but says of equal points that they are a little apart
    return torch.cdist(features, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
