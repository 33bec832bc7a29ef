"""A run that dies inside a step goes on there, and comes to the bits of one that was left alone."""

import pytest
from helpers.inside import Dying, bits, run
from helpers.methods import METHODS, tables

from lwmfw.errors import Interrupted

FAST = ("lwm", "podnet", "si")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in METHODS])
def test_a_run_that_dies_anywhere_in_a_step_comes_to_the_same_bits(name, tmp_path, monkeypatch, request):
    dying = Dying(monkeypatch)
    told, tensors = bits(run(tables(name), tmp_path / "whole"))
    assert len({stage for _, stage, _ in dying.stages}) >= 4, "a phase, read-outs, memory, evaluation"
    stages = list(enumerate(dying.stages, 1))
    begun = [number for number, (step, _, updates) in stages if step == 2 and not updates]
    inside = [number for number, (_, _, updates) in stages if updates]
    for after in [inside[len(inside) // 2], begun[-1]] if name in FAST else [*begun, *inside[::4]]:
        dying.count, dying.after = 0, after
        place = tmp_path / str(after)
        with pytest.raises(Interrupted):
            run(tables(name), place)
        dying.after = 0
        again, resumed = bits(run(tables(name), place))
        assert [key for key, v in tensors.items() if not v.equal(resumed[key])] == [], dying.stages[after - 1]
        assert resumed.keys() == tensors.keys()
        assert again == told, dying.stages[after - 1]
        assert not list((place / "run" / "checkpoints").glob("inside-*"))
