"""A kit for the authors of components: tiny runs, pairs of outputs, and the contract as checks.

    from lwmfw.testing import check_penalty, tiny_run

The checks raise AssertionError and say which sentence of the contract is broken. lwmfw's own components pass the same
checks (tests/whole/test_conformance.py).
"""

from lwmfw.testing.checks import (
    check_backbone,
    check_classifier,
    check_codec,
    check_data,
    check_objective,
    check_observer,
    check_options,
    check_penalty,
    check_phase,
    check_rate,
    check_refiner,
    check_selector,
)
from lwmfw.testing.tiny import TINY, Pair, TinyRun, outputs_pair, penalty_terms, tiny_recipe, tiny_run

__all__ = [
    "TINY",
    "Pair",
    "TinyRun",
    "check_backbone",
    "check_classifier",
    "check_codec",
    "check_data",
    "check_objective",
    "check_observer",
    "check_options",
    "check_penalty",
    "check_phase",
    "check_rate",
    "check_refiner",
    "check_selector",
    "outputs_pair",
    "penalty_terms",
    "tiny_recipe",
    "tiny_run",
]
