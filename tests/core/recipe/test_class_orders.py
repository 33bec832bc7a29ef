"""`scenario.order`: drawn from the seed, an order that the data set offers by name, or a list of classes."""

import hashlib
import re

import numpy as np
import pytest
import torch
from helpers.shop import RECIPE, Part, load, refusal, shop, stocked
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmfw import UserError
from lwmfw.components import Data, Provider
from lwmfw.engine.prepare import class_order
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.tables import Scenario

SEEDS = st.integers(0, 2**63 - 1)
CATALOGUE = discover()


def data(name, **options):
    """The object of a shipped data set; nothing is read."""
    component = CATALOGUE.find("data", name)
    return component.factory(component.options(**options))


def names(classes):
    return [f"class {c}" for c in range(classes)]


# --- drawn from the seed, or listed ------------------------------------------------------------------------------


@given(labels=st.permutations(range(12)), used=st.integers(1, 12), classes=st.integers(0, 12), seed=SEEDS)
@settings(deadline=None)
def test_an_explicit_order_is_kept_whatever_the_seed(labels, used, classes, seed):
    order = labels[:used]
    scenario = Scenario(first=1, order=order, classes=min(classes, used))
    assert class_order(scenario, names(12), {}, seed) == order[: min(classes, used) or used]


@given(seed=SEEDS, classes=st.integers(1, 50), first=st.integers(1, 9), draw=st.data())
@settings(deadline=None)
def test_the_order_of_a_seed_is_a_permutation_that_depends_only_on_the_seed(seed, classes, first, draw):
    whole = class_order(Scenario(first=1), names(classes), {}, seed)
    assert sorted(whole) == list(range(classes))
    torch.manual_seed(first)  # the global generator has no say
    used = draw.draw(st.integers(1, classes))
    assert class_order(Scenario(first=first, increment=2, classes=used), names(classes), {}, seed) == whole[:used]


def test_seeds_give_different_orders():
    orders = {tuple(class_order(Scenario(first=1), names(10), {}, seed)) for seed in range(20)}
    assert len(orders) == 20


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"order": [0, 10]}, r"scenario\.order: 10 is no class; list each of 0\.\.9"),
        ({"order": [3, 1, 3]}, r"scenario\.order: a class stands twice"),
        (
            {"order": "podnet1"},
            r"scenario\.order: no order named 'podnet1'; choose one, or write a list \(known: seed, given\)",
        ),
        ({"order": [3, 1], "classes": 3}, r"scenario\.classes: 3 wanted, but there are 2"),
        ({"classes": 11}, r"scenario\.classes: 11 wanted, but there are 10"),
    ],
)
def test_a_wrong_class_order_is_refused(scenario, words):
    with pytest.raises(UserError, match=words):
        class_order(Scenario(first=1, **scenario), names(10), {}, seed=0)


# --- offered by the data set -------------------------------------------------------------------------------------


CIFAR100_SHA256 = {
    "seed1993": "997a048a5344d216db0a03489cfdfd9b82e9353c7e9494f77f8d8bca56121c7e",
    "podnet1": "62e36f48cf4f51c7f8af22782b6e82a508419bb57eb217ce0c365060eff49b5a",
    "podnet2": "920202d4b4eafb271478568715c5e3ad3bfdfdc3fa9d01c950ecf9c45c3391cc",
    "podnet3": "208ddd64ac86acb0aad7d651c78b254b6b1ba836fc267cb877532b120cb2e593",
    "icarl": "62e36f48cf4f51c7f8af22782b6e82a508419bb57eb217ce0c365060eff49b5a",
}
"""Of the orders as their authors' code has them, written with commas."""


def test_every_order_of_cifar100_is_tested():
    assert data("cifar100").orders.keys() == CIFAR100_SHA256.keys()


@pytest.mark.parametrize("name", CIFAR100_SHA256)
def test_an_order_of_cifar100_is_the_published_one_whatever_the_seed(name):
    orders = data("cifar100").orders
    for seed, classes in ((0, 0), (1, 30)):
        order = class_order(Scenario(first=10, increment=10, order=name, classes=classes), names(100), orders, seed)
        assert order == orders[name][: classes or 100]
    digits = ",".join(map(str, orders[name])).encode()
    assert hashlib.sha256(digits).hexdigest() == CIFAR100_SHA256[name]
    assert sorted(orders[name]) == list(range(100))


def test_seed1993_begins_as_everybody_knows_it():
    assert data("cifar100").orders["seed1993"][:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]


@pytest.mark.parametrize(
    ("name", "options", "classes"),
    [("cifar10", {}, 10), ("cifar100", {}, 100), ("tiny-imagenet", {}, 200), ("cub200", {}, 200),
     ("caltech101", {}, 101), ("imagenet", {}, 1000), ("imagenet", {"subset": 100}, 100)],
)  # fmt: skip
def test_seed1993_is_numpy_s_permutation_of_the_set_s_classes(name, options, classes):
    assert data(name, **options).orders["seed1993"] == np.random.RandomState(1993).permutation(classes).tolist()


def offering(orders):
    """A shop whose data set `albums` of ten classes offers these orders."""

    class Albums(Part):
        pass

    Albums.orders = orders
    return stocked(shop(), Provider("attic", "0.1"), Data("albums", Albums))


def ordered(text, classes=10):
    """A recipe of `albums` in an order."""
    return RECIPE.replace('"digits"', '"albums"').replace("increment = 2", f"increment = 2\norder = {text}")


def test_a_strangers_data_set_offers_orders_of_its_own():
    catalogue = offering({"by-year": [9, 8, 7, 6, 5, 4], "by-hand": range(10)})
    resolved = load(ordered('"by-year"'), catalogue=catalogue)
    assert resolved.tables()["scenario"]["order"] == "by-year"
    assert load(ordered('"by-hand"'), catalogue=catalogue)
    assert load(ordered('"seed"'), catalogue=catalogue)


def test_an_order_that_is_not_offered_is_refused_by_check_with_what_is():
    catalogue = offering({"by-year": range(10), "hand": range(10)})
    assert refusal(ordered('"by-yaer"'), catalogue=catalogue) == (
        "recipe.toml:7: scenario.order: no order named 'by-yaer'; did you mean 'by-year'? "
        "(known: seed, given, by-year, hand)"
    )
    assert refusal(ordered('"x"'), catalogue=catalogue) == (
        "recipe.toml:7: scenario.order: no order named 'x'; choose one, or write a list "
        "(known: seed, given, by-year, hand)"
    )


def test_the_steps_share_out_the_classes_of_an_offered_order():
    catalogue = offering({"half": [0, 1, 2, 3, 4]})
    assert refusal(ordered('"half"\nclasses = 6'), catalogue=catalogue) == (
        "recipe.toml:8: scenario.classes: 6 wanted, but there are 5; ask for fewer"
    )


def test_an_offered_order_of_classes_that_are_not_there_is_refused():
    catalogue = offering({"long": range(11)})
    assert refusal(ordered('"long"'), catalogue=catalogue) == (
        "recipe.toml:7: scenario.order: 10 is no class; list each of 0..9 at most once"
    )


@pytest.mark.parametrize("orders", [None, ["by-year"], {"by-year": 3}, {"by-year": ["a", "b"]}, {1993: [0, 1]}])
def test_orders_that_are_no_table_of_lists_are_the_data_set_s_fault(orders):
    message = refusal(ordered('"by-year"'), catalogue=offering(orders))
    assert re.fullmatch(
        r"attic 0\.1: \w+: orders = .* is no table of name -> list of class numbers; class orders that .* can name",
        message,
    )


def test_orders_that_raise_are_the_data_set_s_fault():
    message = refusal(ordered('"by-year"'), catalogue=offering(property(lambda self: 1 / 0)))
    assert re.match(r"attic 0\.1: \w+: orders raised ZeroDivisionError", message)
    assert "\n" not in message
