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
    "training.precision": "fp32",  # in bf16 torch 2.14 has no finite gradient of a map of one position
    "observers": [],
}


OF_ONE_WIDTH = ("resnet18", "resnet18-cbam", "torchvision")
HEAVY = {
    *("adopted", "caltech101/finetune", "caltech101/lwm", "cifar100/alone/mnemonics", "cifar100/b50/mnemonics-icarl"),
    *("cifar100/b50/mnemonics-lwf", "cifar100/b50/mnemonics-ucir", "cifar100/ten/frozen", "cifar100/ten/muc"),
    *("cifar100/ten/frozen-rotation", "fashion-mnist-mini/frozen", "iilsvrc-small/c-lad", "iilsvrc-small/icarl"),
    *("iilsvrc-small/joint", "iilsvrc-small/lwf-mc", "imagenet/ucir", "imagenet/ucir-jpeg-100"),
}
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


NEAREST_MEAN = {
    "classifier.scaling": 3.0, "classifier.learned_scale": False, "penalties.POD.weight": 5.0, "phases": [],
}  # fmt: skip
"""The settings by which podnet-nme differs from podnet, and which its head names."""


def test_four_settings_make_any_podnet_the_one_whose_nearest_means_are_published():
    written = ("classifier.scaling=3.0", "classifier.learned_scale=false", "penalties.POD.weight=5.0", "'phases=[]'")
    head = RECIPES["cifar100/b50/podnet-nme"].read_text()
    assert " ".join(f"--set {setting}" for setting in written) in head
    changed, published = (
        load_recipe(RECIPES[f"cifar100/b50/{name}"], settings, catalogue=CATALOGUE).tables()
        for name, settings in (("podnet", NEAREST_MEAN), ("podnet-nme", {}))
    )
    assert changed | {"name": published["name"]} == published


def test_podnet_and_its_variants_have_the_published_phase_brightness_and_herding_and_no_last_relu():
    for name in (name for name in RECIPES if name.startswith("cifar100/b50/podnet")):
        tables = load_recipe(RECIPES[name], catalogue=CATALOGUE).tables()
        assert tables["memory"]["select"]["form"] == "code"
        assert tables["data"]["brightness"] == pytest.approx(63 / 255, abs=1e-5)
        assert tables["backbone"].get("final_relu", False) is False
        for phase in tables["phases"]:
            assert (phase["epochs"], phase["trains"], phase["batchnorm"]) == (20, "directions", "always")


def test_purposes_differ():
    purposes = [shipped.purpose(Path(path)) for path in RECIPES.values()]
    assert len(set(purposes)) == len(purposes)
