"""The dynamic rate: a memory that grows by a share of the images that come."""

import pytest

from lwmfw import Penalty, UserError, hookimpl
from lwmfw.testing import tiny_run

MEMORY = {"budget": "12 exemplars", "select": {"use": "random"}}
SEEN = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": MEMORY,
}


def dynamic(**options):
    return SEEN | {"memory": MEMORY | {"rate": {"use": "dynamic", **options}}}


def test_the_dynamic_rate_adds_a_share_of_a_steps_images_after_every_step(tmp_path):
    run = tiny_run(dynamic(alpha=[0.5, 0.25]), tmp_path)
    # 12 and half of 32, then 12 and a quarter of 32, after the last step too: shared out and rounded down
    assert [s.exemplars for s in run.results.steps] == [28, 20, 18]
    assert [s.memory_bytes for s in run.results.steps] == [28 * 192, 20 * 192, 18 * 192]
    planned = [run.run.planned_exemplars(after=step) for step in (1, 2, 3)]
    assert planned == [28, 20, 18]


@pytest.mark.parametrize(
    ("scenario", "kept"),
    [
        ({"first": 2, "increment": [3, 1]}, [2 * 16, 12 + 8, (12 + 8) // 6 * 6]),  # all of 12 + 24; coming; last
        ({"first": 6, "increment": 0}, [12]),  # no step brings images
    ],
)
def test_what_the_dynamic_rate_adds_is_a_share_of_the_step_that_comes(scenario, kept, tmp_path):
    recipe = dynamic(alpha=[0.5]) | {"scenario": scenario, "training": {"epochs": 0}}
    assert [s.exemplars for s in tiny_run(recipe, tmp_path).results.steps] == kept


def test_what_the_dynamic_rate_adds_can_be_given_up_elsewhere(tmp_path):
    seen = {}

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self):
            return None

        @hookimpl
        def after_step(self, step, data):
            seen[step.index] = data.labels.bincount().tolist()

    recipe = dynamic(alpha=[0.4, 0.25], give_up=True) | {"penalties": [{"use": "watch"}]}
    tiny_run(recipe, tmp_path, components=[Penalty("watch", Watch)])
    # 12 and 12.8 of 32, shared out and rounded down; 9.6 of 16 are left; then 12 and 8 of 32, and 12 of 16
    assert seen == {1: [16, 16], 2: [12, 12, 10, 10], 3: [5, 5, 5, 5, 12, 12]}


def test_the_dynamic_rate_keeps_all_where_the_budget_says_so(tmp_path):
    tables = dynamic() | {"memory": dynamic()["memory"] | {"budget": "all"}, "training": {"epochs": 0}}
    assert [s.exemplars for s in tiny_run(tables, tmp_path).results.steps] == [32, 64, 96]


def test_a_growing_rate_beside_a_budget_in_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"memory\.rate: dynamic keeps more than the budget says, and"):
        tiny_run(dynamic() | {"memory": dynamic()["memory"] | {"budget": "6 kB"}}, tmp_path)
