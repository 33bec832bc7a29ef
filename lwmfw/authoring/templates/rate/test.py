import sys
from lwmfw import Budget, Step
from lwmfw.testing import check
from lwmfw_newest import Newest, NewestOptions, register_components

(RECORD,) = register_components()
SECOND = Step(2, range(2, 4), range(4), 2)  # two new classes beside two old ones


def test_keeps_the_contract():
    check(RECORD, favour=3.0)


def test_a_new_class_has_three_for_one_of_an_old_class():
    quota = Newest(NewestOptions(favour=3.0)).allocate_memory(SECOND, Budget("exemplars", 80), range(4), 1.0)
    assert quota == {0: 10, 1: 10, 2: 30, 3: 30}


def test_all_is_all():
    quota = Newest(NewestOptions()).allocate_memory(SECOND, Budget("all", 0), range(4), 1.0)
    assert quota == dict.fromkeys(range(4), sys.maxsize)
