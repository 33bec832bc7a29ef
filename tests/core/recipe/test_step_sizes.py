"""`scenario.increment`: one size for all later steps, the last taking what is left, or a list of sizes."""

import pytest
from helpers.shop import RECIPE, load, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmfw import UserError
from lwmfw.assembly.assemble import assemble
from lwmfw.cli.plan import plan, plan_rows
from lwmfw.engine.prepare import prepare
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.scenario import steps_of
from lwmfw.recipe.tables import Scenario
from lwmfw.testing import tiny_recipe, tiny_run


def sizes(classes, **scenario):
    return [len(step.new_classes) for step in steps_of(Scenario(**scenario), classes)]


@given(first=st.integers(1, 20), increment=st.integers(1, 10), later=st.integers(0, 10))
@settings(deadline=None)
def test_classes_that_make_whole_steps_are_shared_out_evenly(first, increment, later):
    assert sizes(first + increment * later, first=first, increment=increment) == [first] + [increment] * later


def test_the_last_step_takes_what_is_left():
    assert sizes(10, first=2, increment=3) == [2, 3, 3, 2]
    assert sizes(10, first=3, increment=20) == [3, 7]


def test_a_list_says_how_many_come_in_each_later_step():
    assert sizes(12, first=2, increment=[3, 2, 5]) == [2, 3, 2, 5]
    assert sizes(2, first=2, increment=[]) == [2]


@given(first=st.integers(1, 9), increment=st.integers(1, 12) | st.lists(st.integers(1, 9)), classes=st.integers(1, 60))
@settings(deadline=None)
def test_the_steps_have_every_class_once_or_are_refused(first, increment, classes):
    scenario = Scenario(first=first, increment=increment)
    if first > classes or (isinstance(increment, list) and first + sum(increment) != classes):
        with pytest.raises(UserError, match=r"^scenario\.(first|increment): .*; "):
            steps_of(scenario, classes)
        return
    steps = steps_of(scenario, classes)
    assert [c for step in steps for c in step.new_classes] == list(range(classes))
    assert [(step.index, step.total) for step in steps] == [(n, len(steps)) for n in range(1, len(steps) + 1)]
    for step in steps:
        assert [*step.old_classes, *step.new_classes] == list(step.seen_classes)


REFUSED = {
    "too few": (
        "[3, 2]",
        "the list has 5 classes, 3 too few: 8 come after the first 2; change the list, or scenario.classes",
    ),
    "too many": (
        "[3, 2, 5]",
        "the list has 10 classes, 2 too many: 8 come after the first 2; change the list, or scenario.classes",
    ),
    "no later step": (
        "0",
        "0 leaves no step for the 8 classes after the first 2; say how many come at a time, or use fewer classes",
    ),
    "less than nothing": ("-2", "input should be greater than or equal to 0 or a valid list, got -2"),
    "a word": ('"two"', "input should be a valid integer or a valid list, got 'two'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sizes_that_do_not_come_out_are_refused_with_the_difference(case):
    increment, words = REFUSED[case]
    written = RECIPE.replace("increment = 2", f"increment = {increment}")
    assert refusal(written) == f"recipe.toml:6: scenario.increment: {words}"


def test_a_step_of_a_list_has_a_class_at_least():
    written = RECIPE.replace("increment = 2", "increment = [4, 0, 4]")
    assert refusal(written) == "recipe.toml:6: scenario.increment[1]: input should be greater than or equal to 1, got 0"


def test_set_takes_a_list_and_resolved_toml_keeps_it():
    resolved = load(RECIPE, "scenario.increment=[3,1,4]")
    assert resolved.tables()["scenario"]["increment"] == [3, 1, 4]
    assert load(resolved.toml(), name="resolved.toml").tables() == resolved.tables()
    assert refusal(RECIPE, "scenario.increment=[3]").startswith("--set scenario.increment: the list")


@pytest.mark.parametrize("increment", [2, [2, 1]])
def test_a_run_has_steps_of_these_sizes(increment, tmp_path):
    results = tiny_run({"scenario": {"first": 1, "increment": increment}}, tmp_path).results
    assert [step.seen for step in results.steps] == [1, 3, 4]
    assert results.complete


def test_the_plan_shows_the_sizes(tmp_path):
    run = prepare(assemble(load_recipe(tiny_recipe({"scenario": {"first": 1, "increment": 2}}, tmp_path))), "cpu")
    assert [row[2] for row in plan_rows(plan(run))[1]] == ["16", "32", "16", ""]  # 16 images a class
