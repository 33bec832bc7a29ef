"""Any penalty with any backbone, classifier, memory and codec: trained to finite numbers, or refused by check."""

import math
import random

import pytest

from lwmfw.assembly.assemble import assemble
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run

SHIPPED = [c for c in discover().components if c.provider.name == "lwmfw" and c.name not in ("timm", "torchvision")]
WIDE = ("resnet18", "resnet18-cbam")  # of one width only
GROWING = ("den", "der", "pnn")
OF_ONE_NETWORK = {"features", "maps", "raw_maps"}
"""What networks that grow do not offer."""


def names(kind):
    return sorted(c.name for c in SHIPPED if c.kind == kind)


def beside(kind, backbone, heads):
    """The components of a kind that go with a network and its classifier, where that is one that grows."""
    unmet = OF_ONE_NETWORK | ({"similarities", "rows"} if heads == "step-heads" else {"similarities"})
    fit = (c for c in SHIPPED if c.kind == kind)
    fit = (c for c in fit if backbone not in GROWING or not unmet & set(getattr(c.factory, "needs", ())))
    return sorted(c.name for c in fit)


def combination(seed, backbone=None):
    """A recipe of parts drawn from the catalogue."""
    draw = random.Random(seed)
    backbone = backbone or draw.choice(names("backbone"))
    budget = draw.choice(["12 exemplars", "3 per class", "5 kB", "all"])
    growing = [rate for rate in names("rate") if rate != "even"]
    # half of what is drawn could not be, if heads and rates were drawn as the rest is
    heads = "step-heads" if backbone == "den" else "linear"
    if backbone not in GROWING and draw.random() < 0.4:
        heads = draw.choice(names("classifier"))
    penalties = draw.sample(beside("penalty", backbone, heads), draw.randint(1, 3))
    codec = draw.choice(names("codec"))
    if budget == "5 kB" and "L_AD" in penalties:  # whose images are larger, below
        budget = "20 kB"
    if codec == "mecil" and "kB" in budget:  # which its components and its decoder take alone
        budget = "120 kB"
    memory = {
        "budget": budget,
        "select": {"use": draw.choice(names("selector"))},
        "rate": {"use": draw.choice(["even"] if "kB" in budget and draw.random() < 0.8 else ["even", *growing])},
        "codec": {"use": codec},
        "replay": draw.choice([0.0, 0.25]),
        "refine": [{"use": name, "iterations": 2, "queries": 8} for name in names("refiner") if draw.random() < 0.3],
    }
    recipe = {
        "seed": seed,
        # thesis32 leaves 16 pixels a last map of one position, of which there is no attention
        "data": {
            "size": 32 if "L_AD" in penalties else 16,
            "train_per_class": 10,
            "test_per_class": 4,
            "channels": draw.choice([1, 3]),
        },
        "backbone": {"use": backbone}
        | ({} if backbone in WIDE else {"width": 4})
        | ({"prune": draw.random() < 0.5} if backbone == "der" else {}),
        "classifier": {"use": heads},
        "objective": {"use": draw.choice(names("objective")), "over": draw.choice(["new", "seen", "seen"])},
        "penalties": [{"use": name} for name in penalties],
        "training": {"epochs": 1, "batch_size": 10, "lr": 0.01, "precision": draw.choice(["fp32", "bf16"])},
    }
    if draw.random() < 0.8 or backbone == "der":
        recipe |= {"memory": memory}
    readouts = beside("readout", backbone, heads)
    readouts = draw.sample(readouts, draw.randint(1, min(3, len(readouts))))
    recipe["readouts"] = [{"use": name} for name in readouts if "memory" in recipe or name != "nme"] or [{"use": "cnn"}]
    if draw.random() < 0.3:
        recipe["phases"] = [{"use": name, "epochs": 1} for name in names("phase")]
    return recipe


def trains_or_is_refused(recipe, folder):
    try:
        assemble(load_recipe(tiny_recipe(recipe, folder)))
    except UserError as refused:
        lines = str(refused).splitlines()
        assert lines
        assert all(";" in line for line in lines), "a refusal says what to do"
        return
    run = tiny_run(recipe, folder)
    assert len(run.results.steps) == 2
    assert all(math.isfinite(value) for terms in run.terms.values() for value in terms.values())
    assert all(p.isfinite().all() for p in run.run.model.parameters())
    budget = recipe.get("memory", {}).get("budget", "")
    if budget.endswith("kB"):
        assert all(step.memory_bytes <= 1000 * int(budget.split()[0]) for step in run.results.steps)


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.slow] * (n > 1)) for n in range(5)])
def test_a_random_combination(seed, tmp_path):
    trains_or_is_refused(combination(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 120))
def test_many_random_combinations(seed, tmp_path):
    trains_or_is_refused(combination(seed), tmp_path)


GROWN = [pytest.param(name, seed, marks=[pytest.mark.slow] * (seed > 0)) for name in GROWING for seed in range(12)]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("name", "seed"), GROWN)
def test_a_random_combination_of_a_network_that_grows(name, seed, tmp_path):
    trains_or_is_refused(combination(seed, name), tmp_path)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", GROWING)
def test_most_combinations_of_a_network_that_grows_are_possible(name, tmp_path):
    assert sum(possible(combination(seed, name), tmp_path) for seed in range(12)) >= 4


def possible(recipe, folder):
    try:
        assemble(load_recipe(tiny_recipe(recipe, folder)))
    except UserError:
        return False
    return True


def test_most_combinations_are_possible(tmp_path):
    refused = sum(not possible(combination(seed), tmp_path) for seed in range(60))
    assert 5 < refused < 35
