"""The loss of a hundred updates of LwM is what it was: to the bit where torch and processor are those that wrote it.

`python tests/whole/test_golden_curve.py` writes tests/golden/lwm.json anew, after a change that is to alter numbers.
"""

import json
from pathlib import Path

import pytest
import torch

from lwmfw import Observer, hookimpl
from lwmfw.record.directory import _processor
from lwmfw.testing import tiny_run

FILE = Path(__file__).parents[1] / "golden" / "lwm.json"
RECIPE = {
    "data": {"use": "synthetic", "classes": 4, "train_per_class": 25, "test_per_class": 4, "size": 12},
    "penalties": [{"use": "L_D"}, {"use": "L_AD"}],
    "training": {"epochs": 10, "batch_size": 10, "lr": 0.01, "threads": 1},
    "observers": [{"use": "curve"}],
}
"""Two steps of fifty updates each."""


def curve():
    """The terms of every update."""
    rows = []

    class Curve:
        def __init__(self, options):
            pass

        @hookimpl
        def after_update(self, step, terms):
            rows.append({name: value.item() for name, value in terms.items()})

    tiny_run(RECIPE, components=[Observer("curve", Curve)])
    return rows


def here():
    """What decides the last bits."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "processor": _processor(), "capability": capability, "threads": 1}


@pytest.mark.slow
def test_the_loss_of_a_hundred_updates_is_what_it_was():
    golden, found = json.loads(FILE.read_text()), curve()
    assert len(found) == len(golden["terms"]) == 100
    assert [list(row) for row in found] == [["bce"]] * 50 + [["bce", "L_D", "L_AD"]] * 50
    if golden["written"] == here():
        assert found == golden["terms"]
    for row, known in zip(found, golden["terms"], strict=True):
        assert row == pytest.approx(known, rel=1e-4)


if __name__ == "__main__":
    text = ",\n".join(f"  {json.dumps(row)}" for row in curve())
    FILE.write_text(f'{{\n "written": {json.dumps(here())},\n "terms": [\n{text}\n ]\n}}\n')
