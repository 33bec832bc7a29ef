"""Every shipped recipe passes check, and runs its method for two steps on made-up images."""

import json
from pathlib import Path

import pytest

import lwmfw
from lwmfw.assembly.assemble import assemble
from lwmfw.recipe import shipped
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe

RECIPES = shipped.recipes()
CATALOGUE = discover()
SYNTHETIC = {
    "data": {"use": "synthetic", "classes": 4, "train_per_class": 8, "test_per_class": 4, "channels": 1},
    "scenario": {"first": 2, "increment": 2, "classes": 0, "order": "seed"},
    "training.epochs": 1,
    "training.first": {},
    "training.batch_size": 8,
    "observers": [],
}


OF_ONE_WIDTH = ("resnet18", "resnet18-cbam", "torchvision")
HEAVY = {"cifar100/ten/frozen", "cifar100/ten/frozen-rotation", "iilsvrc-small/icarl", "imagenet/ucir-jpeg-100"}
"""Methods that a smaller recipe has too, on a network or with read-outs that take seconds."""


def methods():
    """Recipes that differ in more than data, classes and length; slow: those with the components of an earlier one."""
    kept, components, marked = {}, set(), []
    for name, path in RECIPES.items():
        recipe = load_recipe(path, catalogue=CATALOGUE)
        tables = recipe.tables()
        for key in ("name", "seed", "data", "scenario", "observers"):
            del tables[key]
        for key in ("epochs", "batch_size", "first"):
            del tables["training"][key]
        parts = frozenset(c.component.name for c in recipe.chosen if c.component.kind not in ("data", "observer"))
        kept.setdefault(json.dumps(tables, sort_keys=True), (name, parts))
    for name, parts in kept.values():
        slow = parts in components or name in HEAVY
        marked.append(pytest.param(name, marks=[pytest.mark.slow] if slow else []))
        components.add(parts)
    return marked


def test_there_are_recipes():
    assert {"lwm", "fashion-mnist-mini/finetune", "fashion-mnist-mini/lwf-mc", "fashion-mnist-mini/c-lad"} <= set(
        RECIPES
    )
    assert "fashion-mnist-mini/joint" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_it_passes_check(name):
    assemble(load_recipe(RECIPES[name], catalogue=CATALOGUE))


@pytest.mark.parametrize("name", RECIPES)
def test_its_head_says_purpose_command_cost_and_result(name):
    head = [line for line in RECIPES[name].read_text().splitlines() if line.startswith("#")]
    assert shipped.purpose(RECIPES[name])
    for label in ("command:", "cost:", "result:"):
        assert any(line.lstrip("# ").startswith(label) for line in head), label


@pytest.mark.parametrize("name", methods())
def test_it_runs_two_steps(name, tmp_path):
    recipe = load_recipe(RECIPES[name], catalogue=CATALOGUE).recipe
    wide = recipe.backbone.use in OF_ONE_WIDTH
    small: dict[str, object] = {} if wide else {"backbone.width": 4}
    if wide and any(choice.use == "L_AD" for choice in recipe.penalties):
        small["data.size"] = 64  # or large strides leave a last map of one position, of which there is no attention
    if recipe.phases:
        small["phases"] = [{**choice.model_dump(exclude_none=True), "epochs": 1} for choice in recipe.phases]
    for choice in recipe.memory.refine if recipe.memory else ():
        small[f"memory.refine.{choice.use}.iterations"] = 2
        small[f"memory.refine.{choice.use}.unrolled"] = 2
    results = lwmfw.run(RECIPES[name], SYNTHETIC | small, out=tmp_path / "run", device="cpu")
    assert len(results.steps) == 2
    assert results.complete


def test_purposes_differ():
    purposes = [shipped.purpose(Path(path)) for path in RECIPES.values()]
    assert len(set(purposes)) == len(purposes)
