"""The terms of a loss: merged by name, and summed up over an epoch without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lwmfw.assembly.calls import Attached, Position
from lwmfw.errors import LOWER, NotFinite, RunFailed, WrongAnswer, is_out_of_memory, one_line, quoted


def merge_terms(
    terms: Mapping[str, Tensor], penalties: Iterable[tuple[Attached, Mapping[str, Tensor]]]
) -> dict[str, Tensor]:
    """The objective's term and those of the penalties, in recipe order.

    Raises:
        RunFailed: two components return a term of one name.
    """
    merged, of = dict(terms), dict.fromkeys(terms, "the objective")
    for part, more in penalties:
        for name, value in more.items():
            if name in merged:
                raise part.failure(
                    f"{part.provider}: {part.name}.compute_penalty returned term {quoted(name)}, which is a term of "
                    f"{of[name]} already; rename one"
                )
            merged[name], of[name] = value, f"{part.name} of {part.provider}"
    return merged


def check_gradient(terms: Mapping[str, Tensor], logits: Tensor) -> None:
    """See that the terms of a batch, computed from logits, have a gradient.

    Raises:
        WrongAnswer: none of them has.
    """
    if any(value.requires_grad for value in terms.values()):
        return
    if logits.requires_grad:
        raise WrongAnswer("objective", "returned a loss without a gradient; compute it from the logits, undetached")
    raise WrongAnswer("classifier", "gives logits without a gradient; compute them from its parameters, undetached")


def backward(terms: Mapping[str, Tensor], position: Position) -> None:
    """The gradient of the sum of the terms.

    Raises:
        RunFailed: autograd refuses, as it does when a component changed an output in place or called backward.
    """
    try:
        sum(terms.values(), start=torch.zeros((), device=next(iter(terms.values())).device)).backward()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise RunFailed(
            f"the gradient of {' + '.join(terms)} cannot be computed: {one_line(error)}; the run stopped {position}; "
            "a penalty neither changes outputs in place nor calls backward"
        ) from error


class TermMeans:
    """Sums of the terms of an epoch, kept on the device, and the first batch in which one was not finite."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        # batches whose terms have the same names are summed as one vector
        self._sums: dict[tuple[str, ...], tuple[Tensor, Tensor, list[int]]] = {}
        self._batches = 0

    def anew(self) -> TermMeans:
        """Sums of another epoch."""
        return TermMeans(self._device)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of one batch, detached."""
        self._batches += 1
        names = tuple(terms)
        values = torch.stack([value.float() for value in terms.values()])
        if names not in self._sums:
            never = torch.full_like(values, torch.inf)
            self._sums[names] = (torch.zeros_like(values, dtype=torch.float64), never, [0])
        sums, first_bad, count = self._sums[names]
        sums += values
        torch.where(values.isfinite(), first_bad, first_bad.clamp(max=self._batches), out=first_bad)
        count[0] += 1

    def to_host(self, position: Position) -> dict[str, float]:
        """Term name -> mean over the batches that had it.

        Raises:
            NotFinite: a term was not finite; names the first such batch of the epoch, and the term.
        """
        totals: dict[str, tuple[float, int]] = {}
        worst: tuple[float, str] | None = None
        for names, (sums, first_bad, count) in self._sums.items():
            host = torch.stack([sums, first_bad.double()]).tolist()
            for name, total, bad in zip(names, *host, strict=True):
                before = totals.get(name, (0.0, 0))
                totals[name] = (before[0] + total, before[1] + count[0])
                if bad != torch.inf and (worst is None or bad < worst[0]):
                    worst = (bad, name)
        if worst is not None:
            position.batch = int(worst[0])
            raise NotFinite(
                f"term '{worst[1]}' is not finite; the run stopped {position}; {LOWER} or another weight of the term"
            )
        return {name: total / count for name, (total, count) in totals.items()}

    def state(self) -> dict[str, Any]:
        """The sums, by the number of their names."""
        plain = {"batches": self._batches, "names": [list(names) for names in self._sums]}
        sums = {f"{n} sums": sums for n, (sums, _, _) in enumerate(self._sums.values())}
        bad = {f"{n} bad": bad for n, (_, bad, _) in enumerate(self._sums.values())}
        return plain | {"counts": [count[0] for _, _, count in self._sums.values()]} | sums | bad

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            ValueError: it is none.
        """
        self._batches = int(state["batches"])
        for n, (names, count) in enumerate(zip(state["names"], state["counts"], strict=True)):
            sums, bad = (state[f"{n} {part}"].to(self._device) for part in ("sums", "bad"))
            if not sums.shape == bad.shape == (len(names),):
                raise ValueError(f"{len(names)} names of {sums.numel()} sums")
            self._sums[tuple(names)] = (sums, bad, [int(count)])
