"""The budget of the exemplar memory, as recipes write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_FORM = re.compile(r"([0-9]{1,15}) (exemplars|per class)|([0-9]{1,12}(?:\.[0-9]{1,6})?) (B|kB|MB|GB)")
PATTERN = f"^(all|{_FORM.pattern})$"
"""What `parse_budget` takes, but for budgets of nothing."""


@dataclass(frozen=True)
class Budget:
    """How much the memory may hold.

    Attributes:
        kind: exemplars in all, exemplars of each class, bytes of stored images, or all images there are.
        amount: how many of them; 0 for all.
    """

    kind: Literal["exemplars", "per class", "bytes", "all"]
    amount: int

    def total(self, classes: int, cost: float) -> int | None:
        """Exemplars of so many classes in all; None: no limit.

        Args:
            classes: number of classes seen so far.
            cost: mean bytes of an exemplar.
        """
        match self.kind:
            case "all":
                return None
            case "per class":
                return self.amount * classes
            case "bytes":
                return int(self.amount // cost)
            case _:
                return self.amount


def parse_budget(text: str) -> Budget:
    """Read "2000 exemplars", "20 per class", "6 MB" (of 10^6 bytes) or "all".

    Raises:
        ValueError: anything else, and a budget of nothing.
    """
    if text == "all":
        return Budget("all", 0)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            'input should be a budget; write "2000 exemplars", "20 per class", "6 MB" (B, kB, MB, GB) or "all"'
        )
    if match[2]:
        budget = Budget("per class" if match[2] == "per class" else "exemplars", int(match[1]))
    else:
        budget = Budget("bytes", round(float(match[3]) * UNITS[match[4]]))
    if budget.amount == 0:
        raise ValueError("input should be above nothing; leave [memory] out")
    return budget
