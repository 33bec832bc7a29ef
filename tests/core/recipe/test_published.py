"""The published figures in the heads of recipes, which `compare` shows beside runs of their protocol."""

import re

import pytest

from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.published import published_of, read_published

RECIPES = shipped.recipes()
STATING = [name for name, path in RECIPES.items() if "# published:" in path.read_text()]


def test_figures_are_read_with_read_out_protocol_and_source():
    line = "# published: average, nme: 0.581 in 50 + 2 x 10, 0.44 in 3 x 2\n#            (A and B 2020, by\n#   us)\n"
    first, second = read_published(f"# A\n{line}# b")
    assert (first.measure, first.readout, first.value, first.sizes) == ("average", "nme", 0.581, (50, 10, 10))
    assert first.source == "A and B 2020, by us"
    assert (second.value, second.sizes) == (0.44, (2, 2, 2))
    (untold,) = read_published("# published: last: 0.436 in 1 x 2 (C)\n")
    assert (untold.measure, untold.readout) == ("last", "")
    assert read_published("# result: none yet\n") == []


@pytest.mark.parametrize(
    "line",
    ["average, cnn: 0.5", "average 0.5 in 2 x 5 (A)", "average: 64.1 in 2 x 5 (A)", "mean: 0.5 in 2 x 5 (A)", ""],
)
def test_a_line_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match="not MEASURE, READOUT"):
        read_published(f"# published: {line}\n")


@pytest.mark.parametrize("name", STATING)
def test_every_head_has_the_form_and_figures_of_what_the_recipe_can_do(name):
    recipe = load_recipe(RECIPES[name]).recipe
    readouts = {choice.as_ or choice.use for choice in recipe.readouts} or {"cnn"}
    figures = read_published(RECIPES[name].read_text())
    classes = recipe.data.rest().get("subset") or {"cifar100": 100, "imagenet": 1000}[recipe.data.use]
    assert published_of(recipe.name, [recipe.data.use], figures[0].sizes)
    for figure in figures:
        assert figure.readout in {*readouts, ""}, figure
        assert sum(figure.sizes) == (recipe.scenario.classes or classes)
        assert 0 < figure.value < 1


@pytest.mark.parametrize("name", RECIPES)
def test_no_head_states_published_figures_in_another_form(name):
    text = RECIPES[name].read_text()
    assert not re.search(r"^# thesis:|^# paper:.*\d\.\d|^#   .*--set.*  0?\.\d", text, re.MULTILINE)


def test_figures_are_of_one_recipe_data_set_and_protocol():
    (found,) = published_of("podnet", ["cifar100", "podnet32"], [50, *[10] * 5])
    assert (found.value, found.readout) == (0.648, "cnn")
    assert [found.value for found in published_of("podnet", ["cifar100"], [50, *[1] * 50])] == [0.580]
    assert published_of("podnet", ["fashion-mnist"], [50, *[10] * 5]) == []
    assert published_of("podnet", ["cifar100"], [50, *[10] * 4]) == []
    assert published_of("nothing", ["cifar100"], [50, *[10] * 5]) == []
