"""Every shipped component passes the examination that strangers' components take."""

import pytest
from helpers.pictures import LAYOUTS

from lwmfw.components import KINDS
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import check

SHIPPED = [c for c in discover().components if c.provider.name == "lwmfw"]

WAITS = {"reaches_model": False}  # no term, none before a step has ended, or none after the first
GIVEN = {
    "margin-ranking": [{"stationary": False}],  # it asks nothing of the old model
    **{name: [WAITS] for name in ("freeze", "efc", "ewc", "si", "mas", "self-rotation")},
}
"""Component -> what its examinations have to know."""

BESIDE = {"den": {"classifier": {"use": "step-heads"}}, "margin-ranking": {"classifier": {"use": "cosine"}}}
"""Component -> what a recipe of it needs beside it."""

SIZES = [{"channels": 1, "size": 28}, {"channels": 3, "size": 32}]
RULES = [
    {"rule": rule, "iterations": 2, "queries": 8, "epochs": 1} for rule in ("unrolled", "from-scratch", "class-means")
]
OPTIONS = {"mnemonics": RULES}
"""Component -> options of its examinations."""

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Components that take seconds to load, of extras that .ci/run installs before the slow set."""

EXAMINATIONS = [
    pytest.param(
        record,
        given | {"recipe": BESIDE.get(record.name, {})},
        options,
        id=f"{record.kind} {record.name} {number}".removesuffix(" 0"),
        marks=[pytest.mark.slow] if record.name in TRACKERS else [],
    )
    for record in SHIPPED
    for number, (given, options) in enumerate(
        (given, options)
        for given in (SIZES if record.kind == "backbone" else GIVEN.get(record.name, [{}]))
        for options in OPTIONS.get(record.name, [{}])
    )
]


def test_every_kind_ships_something():
    assert {c.kind for c in SHIPPED} == {kind.kind for kind in KINDS}


@pytest.mark.parametrize(("record", "given", "options"), EXAMINATIONS)
def test_every_component_keeps_its_contract(record, given, options, tmp_path):
    if record.name in ("timm", *TRACKERS):
        pytest.importorskip(record.name)
    if record.name == "fashion-mnist":
        from lwmfw_plugins.data.fashion_mnist import DEBIAN

        if not DEBIAN.is_dir():
            pytest.skip("Debian's dataset-fashion-mnist is not installed")
    if record.name.startswith("cifar"):
        pytest.skip("not shipped; test_cifar.py examines it on made files")
    if record.name in LAYOUTS:
        LAYOUTS[record.name](tmp_path)
        options = {"root": str(tmp_path)}
    check(record, given, **options)
