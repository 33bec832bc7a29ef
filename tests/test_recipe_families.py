"""What the folder of recipes promises: every file is reached by its own command and told apart by its name."""

from collections import Counter

import pytest

from lwmfw import shipped
from lwmfw.recipe import load_recipe

RECIPES = shipped.recipes()


def head(name):
    return [line.lstrip("# ") for line in RECIPES[name].read_text().splitlines() if line.startswith("#")]


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_its_head_runs_this_recipe(name):
    command = next(line for line in head(name) if line.startswith("command:"))
    assert command.split()[:4] == ["command:", "lwmfw", "run", f"recipes/{name}.toml"]


def test_results_of_two_recipes_on_a_data_set_have_different_names():
    names = Counter((key.partition("/")[0], load_recipe(path).recipe.name) for key, path in RECIPES.items())
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_its_head_refers_to_is_there(name):
    words = {word.strip(".,;:()") for line in head(name) for word in line.split()}
    for word in (word for word in words if word.endswith(".toml")):
        inside = word.removeprefix("recipes/")
        folder = RECIPES[name].parent if inside == word else shipped.folder()
        assert (folder / inside).is_file(), word
