"""herding: exemplars whose mean feature stays close to the mean of their class (iCaRL, Rebuffi et al., CVPR 2017).

Algorithm 4 of the paper and the code of its authors, which UCIR and Mnemonics took over, choose differently; both are
here. Features are L2-normalised, images are not augmented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Options, Selector, hookimpl
from lwmfw_plugins.selectors._ranking import select_ranked

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import ImageSet, Run, Selection, Step

_ROUNDS = 1000  # after which the authors' code gives up


def herd(features: Tensor, count: int) -> Tensor:
    """Exemplars in the order of iCaRL's algorithm 4: each brings the mean of those so far closest to the class mean.

    With a sum S of k - 1 exemplars and the sum T of all n features, the distance |T/n - (S + x)/k| is least where
    2 (k T - n S) x - n |x|^2 is largest. No division: features of small integers are herded without rounding.

    Args:
        features: (n, D) of one class, float64.
        count: at most n.

    Returns:
        Positions (count,), int64, without repetition. Of equal ones the first; the first k are those of `count` = k.
    """
    import torch

    n, total = len(features), features.sum(0)
    cost = n * features.square().sum(1)
    chosen = torch.empty(count, dtype=torch.int64, device=features.device)
    missing = torch.zeros_like(total)
    for k in range(count):
        missing += total
        best = torch.addmv(cost, features, missing, beta=-1, alpha=2).argmax(0, keepdim=True)
        missing.sub_(features[best[0]], alpha=n)
        cost.index_fill_(0, best, torch.inf)
        chosen[k] = best[0]
    return chosen


def herd_as_coded(features: Tensor, count: int) -> Tensor:
    """Exemplars in the order of the authors' code: w <- w + mu - x, x being the image with the largest w x.

    An image may be met again and is skipped then, so that a round may bring nothing. After 1000 rounds the authors keep
    fewer exemplars; here those that are missing follow, the largest mu x first.

    Args:
        features: (n, D) of one class, float64.
        count: at most n.

    Returns:
        As `herd`.
    """
    import torch

    mu = features.mean(0)
    w, order = mu, dict[int, None]()
    for _ in range(_ROUNDS):
        if len(order) >= count:
            break
        best = int((features @ w).argmax())
        order[best] = None
        w = w + mu - features[best]
    rest = (features @ mu).argsort(descending=True, stable=True).tolist()
    return torch.tensor(list(order | dict.fromkeys(rest))[:count], dtype=torch.int64)


class HerdingOptions(Options):
    """Options of herding."""

    form: Literal["paper", "code"] = Field(
        "paper",
        description="paper: iCaRL's algorithm 4; code: what its authors, UCIR and Mnemonics run",
    )


class Herding:
    """Exemplars whose mean feature stays close to that of their class."""

    def __init__(self, options: HerdingOptions) -> None:
        self.rank = {"paper": herd, "code": herd_as_coded}[options.form]

    @hookimpl
    def select_memory(self, run: Run, step: Step, candidates: ImageSet, quota: Mapping[int, int]) -> Selection:
        """New classes herded, old ones cut short."""
        return select_ranked(run, step, candidates, quota, self.rank)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Selector("herding", Herding, HerdingOptions)
