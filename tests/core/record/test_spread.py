"""Mean, deviation and paired differences, against tables and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwmfw.record.spread import Difference, Spread, paired_difference, spread_of, student_t

# two-sided quantiles of Student's t as printed tables have them: 95 and 99 percent
TABLE = {
    1: (12.706, 63.657), 2: (4.303, 9.925), 3: (3.182, 5.841), 4: (2.776, 4.604), 5: (2.571, 4.032), 9: (2.262, 3.250),
    10: (2.228, 3.169), 29: (2.045, 2.756), 30: (2.042, 2.750), 100: (1.984, 2.626),
}  # fmt: skip


@pytest.mark.parametrize(("degrees", "quantiles"), TABLE.items())
def test_students_t_is_that_of_the_tables(degrees, quantiles):
    assert [round(student_t(degrees, share), 3) for share in (0.95, 0.99)] == list(quantiles)


def test_a_paired_difference_has_the_interval_of_its_pairs():
    # differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1; 4.3027 x 0.1 / sqrt(3) = 0.24841
    found = paired_difference({1: 0.6, 2: 0.5, 3: 0.9, 9: 0.1}, {3: 0.6, 2: 0.3, 1: 0.5, 8: 0.2})
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, -0.04841, 0.44841), abs=1e-5)
    assert found.n == 3, "the seeds that both have"
    assert found.may_be_none
    assert str(found) == "+0.200 [-0.048, +0.448] n=3, may be 0"


def test_what_seeds_change_in_both_falls_out():
    ours, theirs = {1: 0.3, 2: 0.9, 3: 0.6}, {1: 0.2, 2: 0.81, 3: 0.49}
    found = paired_difference(ours, theirs)
    assert not found.may_be_none
    assert str(found) == "+0.100 [+0.075, +0.125] n=3"
    back = paired_difference(theirs, ours)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_one_pair_has_no_interval_and_none_no_difference():
    assert paired_difference({1: 0.5}, {1: 0.25}) == Difference(0.25, None, None, 1)
    assert str(Difference(0.25, None, None, 1)) == "+0.250, n=1"
    assert paired_difference({1: 0.5}, {2: 0.25}) is None
    assert paired_difference({1: 0.5, 2: None}, {1: None, 2: 0.25}) is None


def test_runs_that_do_not_differ_may_differ_by_nothing():
    same = paired_difference({1: 0.5, 2: 0.75}, {1: 0.5, 2: 0.75})
    assert (same.low, same.high, same.may_be_none) == (0, 0, True)


def test_what_was_not_measured_is_left_out_of_the_mean():
    assert spread_of([0.5, None, 0.7]) == Spread(pytest.approx(0.6), pytest.approx(0.02**0.5), 2)
    assert spread_of([0.5]) == Spread(0.5, None, 1)
    assert spread_of([None]) is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_an_interval_lies_around_its_mean(values):
    found = paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    assert found.low <= found.mean <= found.high
