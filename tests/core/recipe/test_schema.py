"""The JSON schema of recipes, as editors use it: where recipes say it lies, what it takes and what it refuses."""

import json
import tomllib
from dataclasses import replace

import pytest
from helpers.command import lwmfw

from lwmfw import Field, Observer, Options, Penalty
from lwmfw.components import KINDS, Provider
from lwmfw.recipe import shipped
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.schema import recipe_schema, schema_text

RECIPES = shipped.recipes()
SHIPPED = discover()
SHIPPED.components = [c for c in SHIPPED.components if c.provider.name == "lwmfw"]


@pytest.fixture(scope="module")
def faults():
    """Where a recipe's tables go against the schema: places and messages, those inside of alternatives too."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(recipe_schema(SHIPPED))
    validator = jsonschema.Draft202012Validator(recipe_schema(SHIPPED))

    def found(text):
        errors = list(validator.iter_errors(tomllib.loads(text)))
        inner = [inside for error in errors for inside in error.context or ()]
        return {".".join(map(str, error.path)) for error in errors}, " ".join(e.message for e in [*errors, *inner])

    return found


def test_the_file_beside_the_recipes_is_what_is_printed():
    written = (shipped.folder() / shipped.SCHEMA).read_text()
    assert written == schema_text(SHIPPED), "write it anew: lwmfw schema > recipes/recipe.schema.json"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_the_schema_in_its_first_line(name):
    first = RECIPES[name].read_text().splitlines()[0]
    directive, _, path = first.partition(" ")
    assert directive == "#:schema"
    assert path.startswith(("./", "../"))  # else an editor may look elsewhere
    assert (RECIPES[name].parent / path).resolve() == (shipped.folder() / shipped.SCHEMA).resolve()


def test_every_recipe_fits_the_schema(faults):
    assert {name: faults(path.read_text()) for name, path in RECIPES.items() if faults(path.read_text())[0]} == {}


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("sede = 1", "", "'sede' was unexpected"),
        ("[scenario]\nfrist = 1", "scenario", "'frist' was unexpected"),
        ('[training]\nepochs = "3"', "training.epochs", "'3' is not of type 'integer'"),
        ("[training.first]\nepochs = -1", "training.first.epochs", "-1 is less than the minimum of 0"),
        ('[[penalties]]\nuse = "L_D"\nwieght = 1.0', "penalties.0", "'wieght' was unexpected"),
        ('[data]\nuse = "cifr10"', "data", "'cifr10' is not one of"),
        ("[backbone]\nwidht = 3", "backbone", "'widht' was unexpected"),
        ('[memory]\nbudget = ""', "memory.budget", "'' does not match"),
        ('[memory]\nbudget = "all images"', "memory.budget", "'all images' does not match"),
        ('[memory]\nbudget = "20 per classes"', "memory.budget", "'20 per classes' does not match"),
        ('[memory]\nrate = { use = "evn" }', "memory.rate", "'evn' is not one of"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_wrong_by_the_schema(faults, text, place, message):
    places, messages = faults(text)
    assert list(places) == [place]
    assert message in messages


@pytest.mark.parametrize("text", ["[backbone]\nwidth = 3", "[scenario]\nincrement = 2", '[memory.codec]\nuse = "raw"'])
def test_a_file_may_leave_to_its_base_what_a_recipe_must_have(faults, text):
    assert faults(text) == (set(), "")


@pytest.mark.parametrize("budget", ["2000 exemplars", "20 per class", "6 MB", "0.5 kB", "all"])
def test_a_budget_is_what_the_loader_takes(faults, budget):
    assert parse_budget(budget)
    assert faults(f'[memory]\nbudget = "{budget}"') == (set(), "")


def test_every_table_knows_the_components_of_its_kind_and_their_options():
    schema = recipe_schema(SHIPPED)
    for kind in KINDS:
        *outer, key = kind.table.split(".")
        table = (schema["$defs"]["MemoryTable"] if outer else schema)["properties"][key]
        forms = {form["title"]: form for form in (table["items"] if kind.listed else table)["oneOf"]}
        for component in SHIPPED.of_kind(kind.kind):
            form = forms[component.name]
            assert form["properties"]["use"] == {"enum": [component.name, f"lwmfw/{component.name}"]}
            assert form["description"] == component.summary
            for name, field in component.options.model_fields.items():
                said = form["properties"][field.alias or name]
                assert "default" in said or field.is_required() or field.default is None
                assert said["description"] == field.description


def test_a_component_of_somebody_else_is_in_what_is_printed():
    catalogue = discover()
    made = next(c for c in catalogue.components if c.name == "L_D")
    catalogue.components.append(replace(made, name="angles"))
    forms = json.loads(schema_text(catalogue))["properties"]["penalties"]["items"]["oneOf"]
    assert "angles" in [form["title"] for form in forms]


def of_rules(kind, name, kept, provider):
    """A component whose option is made of an inner class; ours has a table of the same name."""

    class Training(Options):
        epochs: kept = Field(description="passes")

    class RuleOptions(Options):
        rule: Training = Field(description="what is done")
        more: list[Training] = Field([], description="and then")

    return kind(name, object, RuleOptions, provider=provider)


def test_inner_classes_of_one_name_are_each_their_component_s_own():
    jsonschema = pytest.importorskip("jsonschema")
    one, other = Provider("one"), Provider("a {b} #1.py", path="a {b} #1.py", sha256="0" * 64)
    catalogue = discover()
    catalogue.components += [of_rules(Penalty, "rules", int, one), of_rules(Penalty, "others", str, one)]
    catalogue.components += [of_rules(Observer, "rules", str, one), of_rules(Observer, "rules", bool, other)]
    schema = recipe_schema(catalogue)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert "lr" in schema["$defs"]["Training"]["properties"]

    def refused(table, use, value):
        tables = {table: [{"use": use, "rule": {"epochs": value}, "more": [{"epochs": value}]}]}
        return not validator.is_valid(tables)

    values = (1, "a", True)
    assert [refused("penalties", "rules", value) for value in values] == [False, True, True]
    assert [refused("penalties", "others", value) for value in values] == [True, False, True]
    assert [refused("observers", "one/rules", value) for value in values] == [True, False, True]
    assert [refused("observers", "a {b} #1.py/rules", value) for value in values] == [True, True, False]


def test_a_copied_recipe_finds_the_schema_beside_it(tmp_path):
    assert lwmfw("recipes", "cifar100/b50/lwf", "--copy", tmp_path).returncode == 0
    copied = tmp_path / "cifar100" / "b50" / "lwf.toml"
    schema = copied.parent / copied.read_text().splitlines()[0].split()[1]
    assert schema.resolve() == tmp_path / "recipe.schema.json"
    schema.write_text("{}")  # a person's own, of more components
    assert lwmfw("recipes", "lwm", "--copy", tmp_path).returncode == 0
    assert schema.read_text() == "{}"
