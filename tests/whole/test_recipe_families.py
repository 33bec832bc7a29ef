"""What the folder of recipes promises: a file is a method, reached by its own command and told apart by its name."""

import re
import tomllib
from collections import Counter

import pytest

from lwmfw.assembly.assemble import assemble
from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import parse_settings

RECIPES = shipped.recipes()


def head(name):
    return [line.lstrip("# ") for line in RECIPES[name].read_text().splitlines() if line.startswith("#")]


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_its_head_runs_this_recipe(name):
    command = next(line for line in head(name) if line.startswith("command:"))
    verb = (
        ["adopt", "--weights"] if name == "adopted" else ["run", f"recipes/{name}.toml"]
    )  # its data come with a model
    assert command.split()[:4] == ["command:", "lwmfw", *verb]


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


def test_a_protocol_is_a_key_and_not_a_file():
    tables = {name: tomllib.loads(path.read_text()) for name, path in RECIPES.items()}
    only = [
        name for name, table in tables.items() if "extends" in table and set(table) <= {"extends", "name", "scenario"}
    ]
    assert only == ["fashion-mnist-mini/joint"]  # a method: all classes at once


PROTOCOLS = [(name, line) for name in RECIPES for line in head(name) if re.match(r"[\d +x]+  .*--set", line)]


@pytest.mark.parametrize(("name", "line"), PROTOCOLS)
def test_a_protocol_of_its_head_passes_check_and_has_the_steps_it_says(name, line):
    resolved = load_recipe(RECIPES[name], parse_settings(re.findall(r"--set (\S+)", line)))
    assemble(resolved)
    start, steps, size = re.match(r"(?:(\d+) \+ )?(\d+) x (\d+) ", line).groups()
    first = int(start or size)
    scenario = resolved.recipe.scenario
    assert (scenario.first, scenario.increment) == (first, int(size))
    assert first + (int(steps) - (not start)) * int(size) == 100
