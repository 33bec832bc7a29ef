"""What a search decides, against examples worked by hand, and which keys it can be asked to search."""

import pytest

from lwmfw.errors import RunFailed, UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.search.decide import (
    Found,
    Search,
    Trial,
    ladder,
    learns_best,
    parse_rates,
    recommended,
    settle,
    trade_offs_of,
)  # fmt: skip
from lwmfw.testing import tiny_recipe

PENALTIES = [{"use": "L_D", "weight": 2.0}, {"use": "L_AD", "weight": 0.5}]
L_D, L_AD = "penalties.L_D.weight", "penalties.L_AD.weight"


def trial(accuracy, lr=0.1, trade_offs=None, step=2):
    return Trial(step, "stability" if trade_offs else "plasticity", lr, trade_offs or {}, 0.0, accuracy, accuracy)


def scripted(plain, traded):
    """A measure that answers by rate, then by trade-off, and the list of what it was asked."""
    asked = []

    def measure(stage, lr, trade_offs, wanted):
        asked.append((stage, lr, *trade_offs.values()))
        accuracy = plain[lr] if stage == "plasticity" else traded[trade_offs["w"]]
        return Trial(2, stage, lr, trade_offs, wanted, accuracy, accuracy)

    return measure, asked


@pytest.mark.parametrize(
    ("accuracies", "best", "chosen"),
    [
        ({0.1: 0.5, 0.05: 0.9, 0.01: 0.7}, 0.9, 0.05),
        ({0.1: 0.89, 0.05: 0.9}, 0.9, 0.1),  # one point below the best still learns the step
        ({0.1: 0.889, 0.05: 0.9}, 0.9, 0.05),
        ({0.1: 0.86, 0.05: 0.87}, 0.87, 0.1),  # whatever the rounding
        ({0.1: None, 0.05: 0.3}, 0.3, 0.05),  # a loss that was not finite
        ({0.01: 0.9, 0.1: 0.9}, 0.9, 0.1),  # in whatever order
    ],
)
def test_the_largest_rate_that_learns_the_step_is_chosen(accuracies, best, chosen):
    found, of = learns_best([trial(accuracy, lr) for lr, accuracy in accuracies.items()])
    assert (found, of.lr) == (best, chosen)


def test_trade_offs_start_high_and_decay():
    assert ladder(Search([0.1], {"w": 2.0, "v": 0.5}, start=10, decay=0.5, trials=3)) == [
        {"w": 20.0, "v": 5.0},
        {"w": 10.0, "v": 2.5},
        {"w": 5.0, "v": 1.25},
    ]
    assert ladder(Search([0.1], {})) == []


def test_the_first_trade_off_that_keeps_the_share_is_accepted():
    measure, asked = scripted({0.1: 0.6, 0.05: 1.0}, {8: 0.2, 4: 0.79, 2: 0.8, 1: 0.9})
    found = settle(Search([0.1, 0.05], {}, keep=0.8), [{"w": 8}, {"w": 4}, {"w": 2}, {"w": 1}], measure)
    assert (found.best, found.accepted.trade_offs, found.kept, found.trials) == (1.0, {"w": 2}, True, 5)
    assert asked == [
        ("plasticity", 0.1),
        ("plasticity", 0.05),
        ("stability", 0.05, 8),
        ("stability", 0.05, 4),
        ("stability", 0.05, 2),
    ]


def test_if_none_keeps_it_the_last_is_taken_and_said_to_fall_short():
    measure, _ = scripted({0.1: 1.0}, {4: 0.1, 2: 0.3, 1: 0.2})
    found = settle(Search([0.1], {}), [{"w": 4}, {"w": 2}, {"w": 1}], measure)
    assert (found.accepted.trade_offs, found.kept, found.trials) == ({"w": 1}, False, 4)


def test_without_trade_offs_the_learning_rate_is_all_there_is_to_find():
    measure, asked = scripted({0.1: 0.7, 0.05: 0.2}, {})
    found = settle(Search([0.1, 0.05], {}), [], measure)
    assert (found.accepted.lr, found.kept, found.trials) == (0.1, True, 2)
    assert len(asked) == 2


def test_a_loss_that_is_not_finite_is_passed_over_until_nothing_is_left():
    measure, _ = scripted({0.1: 0.9}, {4: None, 2: 0.8})
    assert settle(Search([0.1], {}), [{"w": 4}, {"w": 2}], measure).accepted.trade_offs == {"w": 2}
    measure, _ = scripted({0.1: 0.9}, {4: None, 2: 0.1, 1: None})
    assert settle(Search([0.1], {}), [{"w": 4}, {"w": 2}, {"w": 1}], measure).accepted.trade_offs == {"w": 2}
    with pytest.raises(RunFailed, match="step 2: the loss is not finite at any trade-off; lower --start or --lr"):
        settle(Search([0.1], {}), [{"w": 4}], measure)
    with pytest.raises(RunFailed, match="step 2: the loss is not finite at any learning rate; add smaller ones"):
        learns_best([trial(None)])


def test_one_recipe_takes_the_smallest_that_a_later_step_wanted():
    steps = [
        Found(0.9, trial(0.9, 0.5, step=1), True, 2),
        Found(0.9, trial(0.9, 0.1, {"w": 2.0}), True, 3),
        Found(0.9, trial(0.9, 0.2, {"w": 0.5}, step=3), True, 5),
    ]
    assert recommended(steps) == {"training.lr": 0.1, "training.first.lr": 0.5, "w": 0.5}
    assert recommended(steps[:1]) == {"training.lr": 0.5}


# keys


def loaded(tmp_path, penalties=PENALTIES):
    return load_recipe(tiny_recipe({"penalties": penalties}, tmp_path))


def test_by_default_every_penalty_with_a_weight_is_traded_off(tmp_path):
    assert trade_offs_of(loaded(tmp_path), []) == {L_D: 2.0, L_AD: 0.5}
    off = [{"use": "L_D", "as": "a"}, {"use": "L_D", "as": "off", "weight": 0.0}]
    assert trade_offs_of(loaded(tmp_path, penalties=off), []) == {"penalties.a.weight": 1.0}
    assert trade_offs_of(loaded(tmp_path, penalties=[]), []) == {}
    assert trade_offs_of(loaded(tmp_path), [L_AD]) == {L_AD: 0.5}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "penalties.L_A.weight",
            "--trade-off penalties.L_A.weight: no such key in the recipe's penalties; "
            "did you mean 'penalties.L_AD.weight'?",
        ),
        ("training.lr", "no such key in the recipe's penalties; choose of penalties.L_D.weight, "),
        ("penalties.L_AD.distance", "--trade-off penalties.L_AD.distance: is 'l1', no number; name a weight"),
        ("penalties.off.weight", "--trade-off penalties.off.weight: is 0, which no factor changes; set it above 0"),
    ],
)
def test_a_key_that_cannot_be_traded_off_is_refused(key, message, tmp_path):
    off = {"use": "L_D", "as": "off", "weight": 0.0}
    with pytest.raises(UserError) as refused:
        trade_offs_of(loaded(tmp_path, penalties=[*PENALTIES, off]), [key])
    assert message in str(refused.value)


def test_penalties_without_a_weight_above_0_need_a_key(tmp_path):
    with pytest.raises(UserError, match="no penalty has an option 'weight' above 0; name what to search"):
        trade_offs_of(loaded(tmp_path, penalties=[{"use": "L_D", "weight": 0.0}]), [])


@pytest.mark.parametrize("text", ["", "0.1,", "0.1,x", "0", "-1", "nan", "inf"])
def test_a_rate_is_a_number_above_0(text):
    with pytest.raises(UserError, match=r"--lr .* is no number above 0; write --lr 0.1,0.05,0.02"):
        parse_rates(text)


def test_rates_are_read_as_they_are_written():
    assert parse_rates("0.1, 5e-2") == [0.1, 0.05]
    with pytest.raises(UserError, match=r"'0.10' stands twice"):
        parse_rates("0.1,0.10")


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": 1.5}, {"decay": 1}, {"validation": 0}, {"start": 0}])
def test_shares_and_factors_are_checked(options):
    (name,) = options
    with pytest.raises(UserError, match=f"--{name} "):
        Search([0.1], {}, **options)
