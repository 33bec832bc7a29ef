"""What several seeds say: mean and deviation of a variant, and the paired difference of two.

A seed settles the class order, the first weights and the batches, for both variants alike. What it changes in both
falls out of the difference of a pair, so few pairs say more than the two deviations do.

The interval is Student's for paired samples (Biometrika 6, 1908): mean ± t s / sqrt(n), s the deviation of the n
differences, t the quantile for n - 1 degrees of freedom. It takes the differences to be normal, which so few cannot
show. A normal quantile in the place of t would make it half as wide as it has to be for n = 3, and a bootstrap of
three values has ten means to choose from and never leaves their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, sin, sqrt, tan
from statistics import mean, stdev

SHARE = 0.95
"""How much of all such intervals hold the true difference."""


@dataclass(frozen=True)
class Spread:
    """Mean of n values; their deviation, with n - 1, of more than one."""

    mean: float
    deviation: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + (f" ± {self.deviation:.3f}" if self.deviation is not None else "")


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences and its interval; with one pair there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def may_be_none(self) -> bool:
        """Whether the interval holds 0: these pairs do not tell the two apart."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.3f}, n=1"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}] n={self.n}" + ", may be 0" * self.may_be_none


def spread_of(found: Sequence[float | None]) -> Spread | None:
    """Mean and deviation of what was measured; None: nothing was."""
    values = [value for value in found if value is not None]
    if not values:
        return None
    return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> Difference | None:
    """What ours has more than theirs.

    Args:
        ours: seed -> value.
        theirs: likewise.

    Returns:
        None where no seed has both.
    """
    both = [(value, theirs.get(seed)) for seed, value in ours.items()]
    found = spread_of([a - b if a is not None and b is not None else None for a, b in both])
    if found is None:
        return None
    if found.deviation is None:
        return Difference(found.mean, None, None, 1)
    half = student_t(found.n - 1) * found.deviation / sqrt(found.n)
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)


def student_t(degrees: int, share: float = SHARE) -> float:
    """Student's t with so many degrees of freedom between whose negative and itself such a share lies.

    For whole degrees that share is a finite sum in the angle of t to the root of the degrees (Abramowitz and Stegun,
    26.7.3 and 26.7.4), which grows with the angle: it is found by halving. None of the libraries here has it.
    """
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < share else (low, middle)
    return sqrt(degrees) * tan(low)


def _share_within(angle: float, degrees: int) -> float:
    odd = degrees % 2
    term, total = cos(angle) ** odd, 0.0
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= (k + 1) / (k + 2) * cos(angle) ** 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
