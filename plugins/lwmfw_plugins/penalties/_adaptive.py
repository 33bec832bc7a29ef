"""How much more a penalty weighs the more there is to keep: the factors that PODNet and UCIR multiply weights by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lwmfw import Step

Adaptive = Literal["none", "podnet", "ucir", "ucir-paper"]
"""The forms of `adaptive_factor`."""

FORMS = (
    "none: 1; podnet: sqrt(seen classes / new classes); ucir: sqrt(old / new), as its code has it; "
    "ucir-paper: sqrt(new / old), as the paper prints it"
)
"""What an option `adaptive` says of itself."""


def adaptive_factor(form: Adaptive, step: Step) -> float:
    """The factor of a penalty's weight in a step.

    UCIR's code and paper (Hou et al., CVPR 2019) have each other's inverse; its numbers come from the
    code. PODNet (Douillard et al., ECCV 2020) counts the new classes among the seen ones.

    Args:
        form: whose factor.
        step: from the second one on, with old and new classes.

    Returns:
        Above 0, the same for every batch of the step.
    """
    new, old, seen = len(step.new_classes), len(step.old_classes), len(step.seen_classes)
    squares = {"none": 1.0, "podnet": seen / new, "ucir": old / new, "ucir-paper": new / old}
    return math.sqrt(squares[form])
