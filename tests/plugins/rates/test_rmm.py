"""rmm: shares and quotas against what they are to be, runs that keep their number of images, the search of a policy."""

import math
from statistics import median

import pytest
import torch
from helpers.months import extend, pictures
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given
from hypothesis import strategies as st

from lwmfw import Observer, UserError, evaluating, hookimpl, open_run
from lwmfw.testing import tiny_run
from lwmfw_plugins.rates.rmm._policy import (
    POLICIES,
    action,
    class_losses,
    class_weights,
    given_up,
    left_after,
    shared_out,
)

SHARES = st.floats(0, 1, exclude_max=True)
OWN = {"use": "rmm", "policy": "listed", "give_up": [0.5, 0.25], "favour": [0.4]}


def recipe(rate=OWN, budget="12 exemplars"):
    memory = {"budget": budget, "select": {"use": "herding"}, "rate": rate}
    return THREE_STEPS | {"objective": {"use": "cross_entropy", "over": "seen"}, "memory": memory}


# arithmetic


def test_the_shipped_lists_are_those_of_pycil():
    assert POLICIES["icarl"] == ([0.8, 0.8, 0.6, 0.6, 0.6, 0.6], [0, 0, 0.1, 0.1, 0.1, 0])
    assert POLICIES["foster"] == ([0.3, 0.3, 0.3, 0.4, 0.4, 0.4], [0, 0, 0.1, 0.1, 0.1, 0])


def test_the_first_step_has_no_action_and_the_last_one_holds_on():
    assert [action([0.5, 0.2], step) for step in (1, 2, 3, 4)] == [0.0, 0.5, 0.2, 0.2]


@given(images=st.integers(0, 10_000), share=SHARES)
def test_an_image_stays_whatever_is_given_up(images, share):
    count = given_up(images, share)
    assert 0 <= count <= max(0, images - 1)
    assert count in (images - 1, 0) or abs(count - share * images) <= 0.5


@given(counts=st.lists(st.integers(1, 20), min_size=3, max_size=6), share=SHARES, seed=st.integers(0, 1000))
def test_what_is_given_up_is_drawn_from_new_classes_without_repetition(counts, share, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    numbers = {label: given_up(counts[label], share) for label in range(2, len(counts))}
    left = left_after(labels, numbers, torch.Generator().manual_seed(seed))
    assert left.tolist() == sorted(set(left.tolist()))
    assert labels[left].bincount().tolist() == [n - numbers.get(label, 0) for label, n in enumerate(counts)]


def test_other_draws_leave_other_images():
    labels = torch.zeros(50, dtype=torch.int64)
    first, again, other = (
        left_after(labels, {0: 25}, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


@given(total=st.integers(0, 3000), losses=st.lists(st.floats(0, 9), min_size=1, max_size=30), favour=SHARES)
def test_quotas_add_up_to_the_total_and_are_the_shares_to_within_rounding(total, losses, favour):
    weights = class_weights(losses, favour)
    quotas = shared_out(total, weights, [total] * len(weights))
    assert sum(quotas) == total
    each = int(total >= len(weights))
    for quota, weight in zip(quotas, weights, strict=True):
        assert quota >= each
        assert abs(quota - each - (total - each * len(weights)) * weight / sum(weights)) < 1 + 1e-9


@given(
    total=st.integers(0, 400),
    classes=st.lists(st.tuples(st.floats(0.01, 2), st.integers(0, 40)), min_size=1, max_size=20),
)
def test_what_a_class_cannot_use_goes_to_the_others_in_proportion(total, classes):
    weights, most = zip(*classes, strict=True)
    quotas = shared_out(total, weights, most)
    assert sum(quotas) == min(total, sum(most))
    assert all(0 <= quota <= bound for quota, bound in zip(quotas, most, strict=True))
    present = [min(1, bound) for bound in most]
    each = present if total >= sum(present) else [0] * len(most)
    assert all(quota >= one for quota, one in zip(quotas, each, strict=True))
    # one factor of the weights, to within rounding: nobody has more than it says, and who has less has all there is
    told = [*zip(quotas, each, weights, most, strict=True)]
    highest = min(((quota - one + 1) / weight for quota, one, weight, bound in told if quota < bound), default=math.inf)
    assert all((quota - one - 1) / weight <= highest + 1e-9 for quota, one, weight, _ in told)


@given(losses=st.lists(st.floats(0, 9) | st.just(math.nan), min_size=1, max_size=12), favour=SHARES)
def test_classes_above_the_median_loss_have_less_and_all_others_more(losses, favour):
    known = [loss for loss in losses if loss == loss]
    for loss, weight in zip(losses, class_weights(losses, favour), strict=True):
        assert weight == (1 - favour if known and loss > median(known) else 1 + favour)


def test_quotas_of_an_example_by_hand():
    # 505 for five classes, one each: 500 in shares of 1.1, 0.9, 1.1, 0.9, 1.1 of 5.1: 107.84, 88.24, and so on
    weights = class_weights([0.1, 0.9, 0.5, 0.8, 0.2], 0.1)
    assert weights == [1.1, 0.9, 1.1, 0.9, 1.1]
    assert shared_out(505, weights, [505] * 5) == [109, 89, 109, 89, 109]
    assert shared_out(7, [1.0, 1.0, 1.0], [7, 7, 7]) == [3, 2, 2]
    assert shared_out(2, [1.0, 1.5, 0.5], [2, 2, 2]) == [1, 1, 0]
    # one class has 10, one none: 98 and one for each of three; 9 of 98 are cut off, 89 go in shares of 1 and 2 of 3
    assert shared_out(101, [1.0, 1.0, 1.0, 2.0], [10, 0, 200, 200]) == [10, 0, 31, 60]


def test_a_class_has_the_mean_cross_entropy_of_its_images():
    logits, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 0, 3, 2, 2, 0])
    found = class_losses(logits, labels)
    for label in (0, 2, 3):
        rows = [row for row, of in zip(logits.double().tolist(), labels.tolist(), strict=True) if of == label]
        expected = [math.log(sum(map(math.exp, row))) - row[label] for row in rows]
        assert found[label] == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert math.isnan(found[1])


# runs


class Watch:
    """Notes which images a step is trained on, each class's loss before exemplars are selected, and what is kept."""

    seen: dict[int, list[int]]

    def __init__(self, options):
        Watch.seen, Watch.losses, Watch.kept, Watch.planned = {}, {}, {}, {}

    @hookimpl
    def before_step(self, run, step, data):
        Watch.seen[step.index] = data.labels.bincount().tolist()
        Watch.planned[step.index] = [[*run.quota(s, cost=192.0).values()] for s in run.steps]

    @hookimpl
    def before_memory(self, run, step, model, candidates):
        with evaluating(model):
            logits = model.classifier(run.features(candidates))
        Watch.losses[step.index] = class_losses(logits, candidates.labels)

    @hookimpl
    def after_step(self, run, step):
        Watch.kept[step.index] = run.memory.labels.bincount().tolist()


def watched(rate, folder, budget="12 exemplars"):
    components = [Observer("watch", Watch)]
    return tiny_run(recipe(rate, budget) | {"observers": [{"use": "watch"}]}, folder, components=components)


def test_exemplars_and_new_images_are_as_many_as_without(tmp_path):
    result = watched(OWN | {"favour": [0.0]}, tmp_path)
    # 12 and half of 32, 12 and a quarter of 32, 12 as nothing comes
    assert [step.exemplars for step in result.results.steps] == [28, 20, 12]
    assert Watch.seen == {1: [16, 16], 2: [14, 14, 8, 8], 3: [5, 5, 5, 5, 12, 12]}
    assert [sum(Watch.seen[step]) for step in (2, 3)] == [12 + 32] * 2


def test_what_new_classes_have_no_images_for_goes_to_old_ones(tmp_path):
    result = watched(OWN | {"give_up": [0.75], "favour": [0.0]}, tmp_path)
    # 12 and 24 are more than there are: 20 are given up, as 32 are kept; then even quotas are 9, the new classes have 6
    assert [step.exemplars for step in result.results.steps] == [32, 36, 12]
    assert Watch.seen == {1: [16, 16], 2: [16, 16, 6, 6], 3: [12, 12, 6, 6, 4, 4]}
    assert [sum(Watch.seen[step]) for step in (2, 3)] == [12 + 32] * 2


def test_classes_that_are_known_well_have_more_exemplars(tmp_path):
    watched(OWN | {"give_up": [0.25]}, tmp_path)
    for step, held in ((1, [16, 16]), (2, [*Watch.kept[1], 12, 12])):
        assert Watch.kept[step] == shared_out(20, class_weights(Watch.losses[step], 0.4), held)
    low, high = sorted(range(2), key=Watch.losses[1].__getitem__)
    assert Watch.kept[1][low] > Watch.kept[1][high]
    assert Watch.planned == {step: [[10] * 2, [5] * 4, [2] * 6] for step in (1, 2, 3)}  # a plan knows no losses
    assert Watch.kept[3] == [2] * 6


@pytest.mark.parametrize(("budget", "exemplars"), [("2 per class", [20, 16, 12]), ("all", [32, 64, 96])])
def test_budgets_of_another_kind(budget, exemplars, tmp_path):
    result = watched(OWN | {"favour": [0.0]}, tmp_path, budget)
    assert [step.exemplars for step in result.results.steps] == exemplars
    assert sum(Watch.seen[2]) == (4 + 32 if budget != "all" else 64)


def test_a_step_that_was_not_planned_gives_nothing_up(tmp_path):
    pictures(tmp_path / "months", ("ant", "bee", "cat"))
    pictures(tmp_path / "april", ("dog",))
    data = {"use": "folder", "root": str(tmp_path / "months"), "size": 12, "decode": "once"}
    table = recipe(OWN | {"give_up": [0.9]}, "12 exemplars") | {"data": data, "scenario": {"first": 2, "increment": 1}}
    base = tiny_run(table, tmp_path).path
    # 16 exemplars are 4 above the budget: of 8 images of the third class 4 are given up; behind it 12 are kept
    assert open_run(base).exemplars().labels.bincount().tolist() == [4, 4, 4]
    extend(base, tmp_path / "april", tmp_path / "extended", "--train")
    # 0.9 given up would have left one image of the fourth
    assert open_run(tmp_path / "extended").exemplars().labels.bincount().tolist() == [3, 3, 3, 3]


def test_a_budget_in_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"memory\.rate: rmm keeps more than the budget says, and a budget in bytes"):
        tiny_run(recipe(budget="6 kB"), tmp_path)


def test_it_resumes_to_the_same_bits(tmp_path):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = tiny_run(recipe() | {"observers": []}, tmp_path / "whole")
    halves = interrupted(tmp_path / "halves", recipe(), 2)
    for one, other in zip(whole.results.steps, halves.results.steps, strict=True):
        assert (one.confusion, one.exemplars, one.memory_bytes) == (
            other.confusion,
            other.exemplars,
            other.memory_bytes,
        )
    assert whole.run.memory.exemplars == halves.run.memory.exemplars
    for one, other in zip(whole.run.model.parameters(), halves.run.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"policy": "listed"},
            "input should have give_up beside policy = \"listed\", got {'policy': 'listed'}; "
            "list the shares of step 2, 3, ...",
        ),
        (
            {"give_up": [0.5]},
            'input should have no lists beside policy = "icarl", got {\'give_up\': [0.5]}; set policy = "listed"',
        ),
        (
            {"policy": "foster", "favour": [0.1]},
            "input should have no lists beside policy = \"foster\", got {'policy': 'foster', 'favour': [0.1]}; "
            'set policy = "listed"',
        ),
    ],
)
def test_what_contradicts_itself_is_refused(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        tiny_run(recipe({"use": "rmm"} | options), tmp_path)
    assert str(error.value).endswith(f": memory.rate (rmm, from lwmfw 0.1.0): {message}")
    assert "\n" not in str(error.value)
