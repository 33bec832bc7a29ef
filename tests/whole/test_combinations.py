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


def names(kind):
    return sorted(c.name for c in SHIPPED if c.kind == kind)


def combination(seed):
    """A recipe of parts drawn from the catalogue."""
    draw = random.Random(seed)
    backbone, penalties = draw.choice(names("backbone")), draw.sample(names("penalty"), draw.randint(1, 3))
    budget = draw.choice(["12 exemplars", "3 per class", "5 kB", "all"])
    growing = [rate for rate in names("rate") if rate != "even"]
    # half of what is drawn could not be, if heads and rates were drawn as the rest is
    heads = ["step-heads"] if backbone == "den" else ["linear"]
    memory = {
        "budget": budget,
        "select": {"use": draw.choice(names("selector"))},
        "rate": {"use": draw.choice(["even"] if budget == "5 kB" and draw.random() < 0.8 else ["even", *growing])},
        "codec": {"use": draw.choice(names("codec"))},
        "replay": draw.choice([0.0, 0.25]),
        "refine": [{"use": name, "iterations": 2, "queries": 8} for name in names("refiner") if draw.random() < 0.3],
    }
    recipe = {
        "seed": seed,
        "data": {"size": 16, "train_per_class": 10, "test_per_class": 4, "channels": draw.choice([1, 3])},
        "backbone": {"use": backbone} | ({} if backbone in WIDE else {"width": 4}),
        "classifier": {"use": draw.choice(heads if draw.random() < 0.6 else names("classifier"))},
        "objective": {"use": draw.choice(names("objective")), "over": draw.choice(["new", "seen", "seen"])},
        "penalties": [{"use": name} for name in penalties],
        "training": {"epochs": 1, "batch_size": 10, "lr": 0.01, "precision": draw.choice(["fp32", "bf16"])},
    }
    if draw.random() < 0.8:
        recipe |= {"memory": memory}
    readouts = draw.sample(names("readout"), draw.randint(1, 3))
    recipe["readouts"] = [{"use": name} for name in readouts if "memory" in recipe or name != "nme"] or [{"use": "cnn"}]
    if draw.random() < 0.3:
        recipe["phases"] = [{"use": name, "epochs": 1} for name in names("phase")]
    return recipe


def trains_or_is_refused(seed, folder):
    recipe = combination(seed)
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
    if recipe.get("memory", {}).get("budget") == "5 kB":
        assert all(step.memory_bytes <= 5000 for step in run.results.steps)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_combination(seed, tmp_path):
    trains_or_is_refused(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 120))
def test_many_random_combinations(seed, tmp_path):
    trains_or_is_refused(seed, tmp_path)


def test_most_combinations_are_possible(tmp_path):
    refused = 0
    for seed in range(60):
        try:
            assemble(load_recipe(tiny_recipe(combination(seed), tmp_path)))
        except UserError:
            refused += 1
    assert 5 < refused < 35
