"""A kit for the authors of components: tiny runs, pairs of outputs, and the contract as checks.

    from lwmfw.testing import check, tiny_run

`check` is the examination of a component of any kind, and `check_penalty` and the others are what it asks of one kind.
They raise AssertionError and say which sentence of the contract is broken. lwmfw's own components pass the same
examination (tests/whole/test_conformance.py).
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
    check_readout,
    check_refiner,
    check_selector,
)
from lwmfw.testing.examination import check
from lwmfw.testing.growth import check_growth
from lwmfw.testing.tiny import TINY, Pair, TinyRun, outputs_pair, penalty_terms, tiny_recipe, tiny_run

__all__ = [
    "TINY",
    "Pair",
    "TinyRun",
    "check",
    "check_backbone",
    "check_classifier",
    "check_codec",
    "check_data",
    "check_growth",
    "check_objective",
    "check_observer",
    "check_options",
    "check_penalty",
    "check_phase",
    "check_rate",
    "check_readout",
    "check_refiner",
    "check_selector",
    "outputs_pair",
    "penalty_terms",
    "tiny_recipe",
    "tiny_run",
]
