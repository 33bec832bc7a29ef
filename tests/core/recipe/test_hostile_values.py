"""Whatever values a recipe holds, and however its text is edited, it is read or refused in words."""

import copy
import datetime
import tomllib
from pathlib import Path

import pytest
import tomli_w
from helpers.hostile import CATALOGUE, FOREVER, RECIPE, check
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmfw.errors import UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.tables import Recipe

pytestmark = pytest.mark.timeout(FOREVER)
HUGE = "0x" + "f" * 5000
"""A number that TOML may hold and Python refuses to write out."""


# --- every key ---------------------------------------------------------------------------------------------------


def places(table, above=()):
    """The keys of every value within tables and arrays of tables."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        yield (*above, key)
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield from places(value, (*above, key))


def value_at(tables, keys):
    for key in keys:
        tables = tables[key]
    return tables


def accepted(tables, keys, value):
    """Whether the recipe is still one with another value at a key; if not, the error must name the key."""
    spoilt = copy.deepcopy(tables)
    value_at(spoilt, keys[:-1])[keys[-1]] = "HUGE" if value is HUGE else value
    Path("recipe.toml").write_text(tomli_w.dumps(spoilt).replace('"HUGE"', HUGE))
    try:
        check("recipe.toml", catalogue=CATALOGUE)
    except UserError as error:
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)[1:]
        return f": {dotted}" not in str(error)
    return True


@pytest.fixture
def tables():
    """The valid recipe with a memory and every default written out."""
    memory = '[memory]\nbudget = "20 per class"\nselect = { use = "random" }\n'
    Path("recipe.toml").write_text(RECIPE.replace('use = "bce"', 'use = "bce"\nover = "seen"') + memory)
    return tomllib.loads(load_recipe("recipe.toml", catalogue=CATALOGUE).toml())


def numbers(tables):
    return [keys for keys in places(tables) if type(value_at(tables, keys)) in (int, float)]


def test_the_recipe_has_every_table(tables):
    assert set(tables) == set(Recipe.model_fields) - {"origin"}  # of one that goes on from a run
    assert len(numbers(tables)) > 15


def test_no_key_takes_a_value_of_a_wrong_type(tables):
    wrong = datetime.date(2020, 1, 1)  # no key is a date
    assert [keys for keys in places(tables) if accepted(tables, keys, wrong)] == []


def test_no_number_is_taken_from_text_or_a_truth_value(tables):
    assert [keys for keys in numbers(tables) if accepted(tables, keys, "1") or accepted(tables, keys, True)] == []


def test_no_number_is_infinite_or_none(tables):
    values = (float("inf"), float("-inf"), float("nan"))
    assert [keys for keys in numbers(tables) for value in values if accepted(tables, keys, value)] == []


def test_no_integer_is_huge_or_negative(tables):
    integers = [keys for keys in numbers(tables) if isinstance(value_at(tables, keys), int)]
    assert [keys for keys in integers for value in (10**30, -1, -(10**30)) if accepted(tables, keys, value)] == []


def test_no_key_takes_a_number_that_cannot_be_written_out(tables):
    assert [keys for keys in [*places(tables), ("extends",)] if accepted(tables, keys, HUGE)] == []


def test_step_1_takes_no_more_than_the_other_steps(tables):
    values = {"epochs": -1, "batch_size": 10**30, "lr": float("nan"), "momentum": "0.9", "schedule": True, "first": {}}
    assert [key for key, value in values.items() if accepted(tables, ("training", "first", key), value)] == []


# --- at random ---------------------------------------------------------------------------------------------------

at_random = settings(max_examples=200, deadline=None, derandomize=True)

FRAGMENTS = [
    "[", "]", "[[", "]]", "{", "}", '"', "'", '"""', "'''", "=", ".", ",", "#", "\n", "\\", "\0", "\r", " ", "-", "nan",
    "inf", "0x", "1e999", "9" * 50, "true", "[training]", "[[penalties]]", "[training.first]", "use = ", "as = ",
    'extends = "recipe.toml"\n', "plugins = []\n", "2020-01-01", '"\\n"', '"" = 1\n', "\u2028", "\ufeff", "é",
]  # fmt: skip
pieces = st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5))
edits = st.lists(
    st.tuples(st.integers(0, len(RECIPE)), st.one_of(st.just(0), st.integers(0, 30)), pieces), min_size=1, max_size=5
)


def is_answered(content):
    """Loads, or is refused in words."""
    Path("recipe.toml").write_bytes(content)
    try:
        check("recipe.toml", catalogue=CATALOGUE)
    except UserError as error:
        lines = str(error).split("\n")
        assert all(line.startswith("recipe.toml") and line.isprintable() for line in lines)


@given(edits)
@at_random
@pytest.mark.timeout(120)
def test_a_recipe_edited_at_random_is_read_or_refused(changes):
    text = RECIPE
    for position, removed, inserted in changes:
        text = text[:position] + inserted + text[position + removed :]
    is_answered(text.encode())


KEYS = [*Recipe.model_fields, "use", "as", "weight", "first", "order", "epochs", "lr", "batch-size", "extends", "a b"]
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=4))
leaves = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), st.times(), st.datetimes(),
    st.sampled_from(["linear", "L_D", "lwmfw/L_D", "seed", "bce", "recipe.toml", 10**30]),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(keys, values, max_size=4), st.booleans())
@at_random
@pytest.mark.timeout(120)
def test_tables_of_any_form_are_read_or_refused(drawn, merged):
    tables = tomllib.loads(RECIPE) if merged else {}
    for key, value in drawn.items():
        both = isinstance(value, dict) and isinstance(tables.get(key), dict)
        tables[key] = tables[key] | value if both else value
    is_answered(tomli_w.dumps(tables).encode())
