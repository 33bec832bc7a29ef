"""The budget of the exemplar memory, as it is written and what it refuses."""

import pytest
from helpers.shop import RECIPE, refusal
from hypothesis import given
from hypothesis import strategies as st

from lwmfw import UserError
from lwmfw.recipe.budget import Budget, parse_budget
from lwmfw.testing import tiny_run

SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
RANDOM = SEEN | {"memory": {"budget": "12 exemplars", "select": {"use": "random"}}}


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2000 exemplars", Budget("exemplars", 2000)),
        ("20 per class", Budget("per class", 20)),
        ("6 MB", Budget("bytes", 6_000_000)),
        ("1.5 kB", Budget("bytes", 1500)),
        ("100 B", Budget("bytes", 100)),
        ("all", Budget("all", 0)),
    ],
)
def test_a_budget_is_written_in_words(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "2000", "20 perclass", "-1 MB", "6 mb", "1e3 B", "20  per class", "all ", "٣ B"])
def test_what_is_no_budget_is_refused_with_examples(text):
    message = refusal(RECIPE + f'\n[memory]\nbudget = "{text}"\nselect = {{ use = "none" }}')
    assert message == (
        f"recipe.toml:25: memory.budget: input should be a budget, got '{text}'; "
        'write "2000 exemplars", "20 per class", "6 MB" (B, kB, MB, GB) or "all"'
    )


@pytest.mark.parametrize("text", ["0 exemplars", "0 per class", "0 MB", "0.2 B"])
def test_an_empty_budget_is_refused(text):
    with pytest.raises(ValueError, match="above nothing; leave"):
        parse_budget(text)


@given(amount=st.integers(1, 10**9), classes=st.integers(1, 1000), cost=st.floats(1, 10**6))
def test_a_budget_is_so_many_exemplars(amount, classes, cost):
    assert Budget("exemplars", amount).total(classes, cost) == amount
    assert Budget("per class", amount).total(classes, cost) == amount * classes
    in_bytes = Budget("bytes", amount).total(classes, cost)
    assert in_bytes * cost <= amount + 1e-6 < (in_bytes + 1) * cost + 1e-3
    assert Budget("all", 0).total(classes, cost) is None


@pytest.mark.parametrize("budget", ["3 exemplars", "700 B"])
def test_a_budget_of_less_than_an_exemplar_per_class_is_refused(budget, tmp_path):
    with pytest.raises(UserError, match=rf"memory\.budget: '{budget}' is less than an exemplar for each of 4 classes"):
        tiny_run(SEEN | {"memory": RANDOM["memory"] | {"budget": budget}}, tmp_path)


def test_a_loss_over_the_new_classes_is_refused_beside_exemplars(tmp_path):
    with pytest.raises(UserError, match=r'objective\.over: "new" has no place for the exemplars.*; set over = "seen"'):
        tiny_run(RANDOM | {"objective": {"use": "cross_entropy"}}, tmp_path)
