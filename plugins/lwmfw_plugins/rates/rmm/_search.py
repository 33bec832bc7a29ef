"""The search for a policy, in the place of RMM's reinforcement learning: coordinate ascent on a grid. No training here.

A policy is a tuple of tenths, m of each step and then c of each step. It begins with none given up and none favoured,
which is the rate even. All m together are moved first, then all c, then each alone; a move that brings a higher reward
is made again, one that does not is tried the other way. When none brings anything the stride is shortened; when none of
the shortest stride does, or all trials are spent, the best that was tried is the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from lwmfw_plugins.rates.rmm._policy import Policy

Tenths = tuple[int, ...]
"""m of step 2, 3, ..., then c of as many steps."""

MOST = (9, 5)
"""The largest m and the largest c that is tried, in tenths."""

STRIDES = (3, 1)
"""How far a move goes, in tenths."""


def policy_of(tenths: Tenths) -> Policy:
    """The actions as shares."""
    steps = len(tenths) // 2
    return Policy([t / 10 for t in tenths[:steps]], [t / 10 for t in tenths[steps:]])


def climb(reward: Callable[[Tenths], float], steps: int, trials: int) -> dict[Tenths, float]:
    """Search the actions of some steps.

    Args:
        reward: of a policy; asked at most once for each.
        steps: how many there are after the first, one at least.
        trials: how often the reward is asked at most, once at least.

    Returns:
        What was tried, in order, and its reward.
    """
    best: Tenths = (0,) * (2 * steps)
    tried = {best: reward(best)}
    level, single = [range(steps), range(steps, 2 * steps)], [range(i, i + 1) for i in range(2 * steps)]
    for stride in STRIDES:
        climbing = True
        while climbing:
            climbing = False
            for move in [(places, sign * stride) for places in level + single for sign in (1, -1)]:
                while (there := moved(best, *move)) not in tried:
                    if len(tried) == trials:
                        return tried
                    tried[there] = reward(there)
                    if tried[there] <= tried[best]:
                        break
                    best, climbing = there, True
    return tried


def moved(tenths: Tenths, places: range, by: int) -> Tenths:
    """A policy of which some actions are larger, as far as the grid goes."""
    most = [bound for bound in MOST for _ in range(len(tenths) // 2)]
    return tuple(min(max(t + by, 0), most[i]) if i in places else t for i, t in enumerate(tenths))


def best_of(tried: dict[Tenths, float]) -> Tenths:
    """The policy of the highest reward, of equal ones the first."""
    return max(tried, key=tried.__getitem__)
