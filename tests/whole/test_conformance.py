"""Every shipped component passes the examination that strangers' components take."""

import pytest
from helpers.pictures import LAYOUTS

from lwmfw.components import KINDS
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import (
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

SHIPPED = [c for c in discover().components if c.provider.name == "lwmfw"]


def of_kind(kind):
    found = [c for c in SHIPPED if c.kind == kind]
    assert found, f"no shipped {kind}"
    return pytest.mark.parametrize("record", found, ids=[c.name for c in found])


def test_every_kind_ships_something():
    assert {c.kind for c in SHIPPED} == {kind.kind for kind in KINDS}


@pytest.mark.parametrize("record", SHIPPED, ids=[c.name for c in SHIPPED])
def test_options_are_described_and_valid_by_default(record):
    check_options(record)


@of_kind("penalty")
def test_penalties(record):
    ranks = record.name == "margin-ranking"  # it asks nothing of the old model
    waits = record.name in ("freeze", "ewc", "si", "mas")  # no term, or none before a step has ended
    check_penalty(record.factory, record.options(), stationary=not ranks, reaches_model=not waits)


@of_kind("backbone")
def test_backbones(record):
    if record.name == "timm":
        pytest.importorskip("timm")
    for channels, size in ((1, 28), (3, 32)):
        check_backbone(record.factory(record.options()), channels=channels, size=size)


@of_kind("classifier")
def test_classifiers(record):
    check_classifier(record.factory(record.options()))


@of_kind("objective")
def test_objectives(record):
    check_objective(record.factory(record.options()))


@of_kind("data")
def test_data(record, tmp_path):
    options = {}
    if record.name == "fashion-mnist":
        from lwmfw_plugins.data.fashion_mnist import DEBIAN

        if not DEBIAN.is_dir():
            pytest.skip("Debian's dataset-fashion-mnist is not installed")
    if record.name.startswith("cifar"):
        pytest.skip("not shipped; test_cifar.py examines it on made files")
    if record.name in LAYOUTS:
        LAYOUTS[record.name](tmp_path)
        options["root"] = str(tmp_path)
    check_data(record.factory(record.options(**options)))


@of_kind("selector")
def test_selectors(record):
    check_selector(record.factory(record.options()))


@of_kind("rate")
def test_rates(record):
    check_rate(record.factory(record.options()))


@of_kind("refiner")
@pytest.mark.parametrize("rule", ["unrolled", "from-scratch", "class-means"])
def test_refiners(record, rule):
    check_refiner(record.factory(record.options(rule=rule, iterations=2, queries=8, epochs=1)))


@of_kind("codec")
def test_codecs(record):
    check_codec(record.factory(record.options()))


@of_kind("phase")
def test_phases(record):
    check_phase(record.factory(record.options()))


@of_kind("observer")
def test_observers(record, tmp_path):
    check_observer(record, tmp_path)
