"""The door by which settings come in: in any order, as text where a string is wanted, and as Python has values."""

import itertools
from pathlib import Path

import pytest
from helpers.command import lwmfw
from helpers.market import given, market, refused, typed
from helpers.shop import RECIPE, refusal, write

from lwmfw.recipe.load import load_recipe, override
from lwmfw.recipe.settings import parse_settings
from lwmfw.testing import tiny_recipe

# --- order -------------------------------------------------------------------------------------------------------

ANY_ORDER = {
    # name: (settings, what they come to by dotted key, or whether they are refused)
    "model": ({"backbone.model": "resnet34", "backbone.use": "model"}, {"backbone": {"model": "resnet34"}}),
    "root": ({"data.root": "/x", "data.size": 4, "data.use": "folder"}, {"data": {"root": "/x", "size": 4}}),
    "objective": (
        {"objective.over": "seen", "objective.weight": 2.0, "objective.use": "shop/plain"},
        {"objective": {"over": "seen", "weight": 2.0}},
    ),
    "first step": (
        {"training.first.lr": 0.3, "training.lr": 0.2, "training.epochs": 5},
        {"training": {"lr": 0.2, "epochs": 5, "first": {"lr": 0.3}}},
    ),
    "array": (
        {"penalties.push.strength": 3.0, "penalties": [{"use": "push"}]},
        {"penalties": [{"use": "push", "as": "push", "strength": 3.0}]},
    ),
    "another penalty": (
        {"penalties.push.strength": 3.0, "penalties.pull.use": "push"},
        {"penalties": [{"use": "push", "as": "push", "strength": 3.0}]},
    ),
    "another penalty by its former name": (
        {"penalties.pull.strength": 3.0, "penalties.pull.use": "push"},
        {"penalties": [{"use": "push", "as": "push", "strength": 3.0}]},
    ),
    "another name": (
        {"penalties.late.weight": 3.0, "penalties.pull.as": "late", "penalties.pull.layers": 4},
        {"penalties": [{"use": "pull", "as": "late", "weight": 3.0, "layers": 4}]},
    ),
    "table and key": (
        {"training": {"epochs": 7, "lr": 0.2, "first": {"lr": 0.4}}, "training.epochs": 9},
        {"training": {"epochs": 9, "lr": 0.2, "first": {"lr": 0.4}}},
    ),
    "table without use": (
        {"backbone": {"model": "resnet34"}, "backbone.use": "model"}, {"backbone": {"model": "resnet34"}},
    ),
    "table with use": ({"backbone": {"use": "wide"}, "backbone.width": 8}, {"backbone": {"use": "wide", "width": 8}}),
    "emptied table": (
        {"training.first": {}, "training.first.epochs": 2}, {"training": {"first": {"epochs": 2}}},
    ),
    "data set of an option": (
        {"penalties": [{"use": "any"}], "penalties.any.other.root": "/y", "penalties.any.other.use": "folder"},
        {"penalties": [{"other": {"use": "folder", "root": "/y"}}]},
    ),
}  # fmt: skip


def within(part, whole):
    """Whether every key of nested tables is in others, and has the same value there."""
    if isinstance(part, dict):
        return all(key in whole and within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and part and isinstance(part[0], dict):
        return len(part) == len(whole) and all(map(within, part, whole))
    return part == whole


def as_toml(value):
    """A value as one writes it behind `--set`."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {as_toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    return f"'{value}'" if isinstance(value, str) else str(value)


@pytest.mark.parametrize("case", ANY_ORDER)
def test_settings_come_to_the_same_in_every_order(case):
    settings, wanted = ANY_ORDER[case]
    text = RECIPE + "[training.first]\nlr = 0.5\n"
    base = load_recipe(write(text), catalogue=market())
    first = given(settings, text)
    assert within(wanted, first)
    for pairs in itertools.permutations(settings.items()):
        assert given(dict(pairs), text) == first
        assert typed(*(f"{key}={as_toml(value)}" for key, value in pairs), text=text) == first
        if not any(isinstance(value, dict) for value in settings.values()):
            assert override(base, dict(pairs)).tables() == first


def test_an_option_that_does_not_fit_beside_another_is_refused_in_every_order():
    for pairs in itertools.permutations([("backbone.use", "flat"), ("backbone", {"use": "wide", "width": 4})]):
        assert refused(dict(pairs)).startswith("--set backbone: backbone.width (flat, from shop 1.2): no such option")
    for pairs in itertools.permutations([("penalties", []), ("penalties.pull.weight", 2.0)]):
        assert refused(dict(pairs)) == (
            "--set penalties.pull.weight: penalties has no single component 'pull'; choose of none"
        )


def test_components_can_exchange_their_names():
    text = RECIPE + '[[penalties]]\nuse = "late"\n'
    for pairs in itertools.permutations([("penalties.pull.as", "late"), ("penalties.late.as", "pull")]):
        assert [each["as"] for each in given(dict(pairs), text)["penalties"]] == ["late", "pull"]


def test_what_the_command_line_shows_has_every_option_that_was_given():
    recipe = tiny_recipe({}, Path())
    answer = lwmfw("show", str(recipe), "--set", "backbone.model=resnet34", "--set", "backbone.use=torchvision")
    assert 'model = "resnet34"' in answer.stdout


# --- tables ------------------------------------------------------------------------------------------------------


def test_a_table_is_merged_into_the_one_that_is_there():
    assert within({"scenario": {"first": 2, "increment": 4}}, given({"scenario": {"increment": 4}}))
    assert within({"scenario": {"first": 2, "increment": 4}}, typed("scenario={increment=4}"))
    penalty = RECIPE.replace('"pull"\nweight = 0.5', '"any"')
    assert given({"penalties.any": {"table": {"b": 3}}}, penalty)["penalties"][0]["table"] == {"b": 3}
    stated = penalty.replace('"any"', '"any"\ntable = {a = 1, "c.d" = 2}')
    assert given({"penalties.any": {"table": {"c.d": 3}}}, stated)["penalties"][0]["table"] == {"a": 1, "c.d": 3}


def test_a_table_that_names_another_component_takes_the_place():
    wide = RECIPE.replace('"flat"', '"wide"\nwidth = 4')
    assert given({"backbone": {"use": "model"}}, wide)["backbone"] == {"use": "model", "model": "resnet18"}
    assert given({"backbone": {"use": "wide"}}, wide)["backbone"] == {"use": "wide", "width": 4}


def test_a_table_for_an_array_is_refused():
    assert refused({"penalties": {"use": "push"}}) == (
        "--set penalties: input should be a valid list, got {'use': 'push'}; write [[penalties]]"
    )


def test_override_puts_its_own_tables_in_the_place_and_merges_those_of_the_command_line():
    base = load_recipe(write(RECIPE.replace('"digits"', '"folder"\nsize = 4')), catalogue=market())
    assert override(base, {"data": {"use": "folder"}}).tables()["data"]["size"] == 8
    assert override(base, parse_settings(["data={use='folder'}"])).tables()["data"]["size"] == 4


def test_a_later_round_of_an_override_wins():
    base = load_recipe(write(RECIPE), catalogue=market())
    rounds = {"data": {"use": "folder", "root": "/x"}}, parse_settings(["data={size=4}"]), {"training": {"epochs": 3}}
    merged = override(base, *rounds).tables()
    assert within({"data": {"root": "/x", "size": 4}, "training": {"epochs": 3}}, merged)


def test_settings_are_left_as_they_were_given():
    order, settings = [3, 2, 1, 0], {"scenario.order": [3, 2, 1, 0], "training": {"first": {"epochs": 2}}}
    resolved = load_recipe(write(RECIPE), settings, catalogue=market())
    override(resolved, {"training.first.epochs": 3, "scenario.order": order})
    resolved.source.table["scenario"]["order"].append(9)
    assert settings == {"scenario.order": [3, 2, 1, 0], "training": {"first": {"epochs": 2}}}


# --- text where a string is wanted -------------------------------------------------------------------------------

TEXTS = [
    "2024", "2024-01-31", "2024-01-31T10:00:00", "12:30:00", "1e5", "true", "0x10", "1_1", "inf", "nan", "1.50", "-3",
    "[set]", "[1, 2]", "[", "{", "'q", '"q', "007", "my photos", "a#b", "12 #3", "x=y",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_string_is_the_text_as_it_stands(text):
    settings = ("data.use=folder", f"data.root={text}", "backbone.use=model", f"backbone.model={text}")
    changed = typed(*settings)
    assert (changed["data"]["root"], changed["backbone"]["model"]) == (str(Path(text).absolute()), text)
    base = load_recipe(write(RECIPE), catalogue=market())
    assert override(base, parse_settings(settings)).tables() == changed


def test_quotes_are_those_of_toml():
    assert typed("backbone.use=model", "backbone.model='two words'")["backbone"]["model"] == "two words"
    assert typed("backbone.use=model", "backbone.model=\"'q'\"")["backbone"]["model"] == "'q'"


def test_text_is_taken_for_names_choices_and_data_sets_of_options():
    assert typed("name=2024")["name"] == "2024"
    assert typed("data.use=folder", "data.sampling=420")["data"]["sampling"] == "420"
    any_data = ("penalties=[{use='any'}]", "penalties.any.other.use=folder", "penalties.any.other.root=2024")
    assert typed(*any_data)["penalties"][0]["other"]["root"] == str(Path("2024").absolute())
    assert refusal(RECIPE, "backbone.use=34").startswith("--set backbone.use: no backbone named '34'")


def test_numbers_stay_numbers_where_they_are_wanted():
    assert typed("training.epochs=0x10", "training.lr=1e-3")["training"]["epochs"] == 16
    penalty = RECIPE.replace('"pull"\nweight = 0.5', '"any"')
    assert typed("penalties.any.table.a=5", text=penalty)["penalties"][0]["table"] == {"a": 5}


def test_text_that_cannot_be_the_string_is_refused_as_such():
    assert refusal(RECIPE, "data.use=folder", "data.sampling=422", catalogue=market()) == (
        "--set data.sampling (folder, from market 1.0): input should be '444' or '420', got 422"
    )
    assert refusal(RECIPE, "memory.budget=20", "memory.select.use=random", catalogue=market()) == (
        "--set memory.budget: input should be a budget, got '20'; "
        'write "2000 exemplars", "20 per class", "6 MB" (B, kB, MB, GB) or "all"'
    )
    assert refusal(RECIPE, "training.epochs=[5", "name=7") == (
        "--set training.epochs: the value is not valid TOML; quote it"
    )


UNQUOTED = {
    "2024": 'got 2024; write root = "2024"',
    "2024-01-31": 'got datetime.date(2024, 1, 31); write root = "2024-01-31"',
    "12:30:00": 'got datetime.time(12, 30); write root = "12:30:00"',
    "true": 'got True; write root = "true"',
    "1e5": "got 100000.0; put it in quotes",
    "inf": "got inf; put it in quotes",
    "[1]": "got [1]",
}


@pytest.mark.parametrize("value", UNQUOTED)
def test_a_file_that_lacks_quotes_is_told_where_they_belong(value):
    text = RECIPE.replace('"digits"', f'"folder"\nroot = {value}')
    assert refusal(text, catalogue=market()) == (
        f"recipe.toml:3: data.root (folder, from market 1.0): input should be a valid string, {UNQUOTED[value]}"
    )


def test_a_choice_and_an_entry_that_lack_quotes_are_told_too():
    text = RECIPE.replace('"digits"', '"folder"\nsampling = 420')
    assert refusal(text, catalogue=market()).endswith("should be '444' or '420', got 420; write sampling = \"420\"")
    assert refusal("plugins = [7]\n" + RECIPE).endswith('plugins[0]: input should be a valid string, got 7; write "7"')


def test_python_has_quotes_of_its_own_to_write():
    assert refused({"data.use": "folder", "data.root": 2024}) == (
        '--set data.root (folder, from market 1.0): input should be a valid string, got 2024; write root = "2024"'
    )
