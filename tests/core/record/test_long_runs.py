"""Runs of many steps and of many classes: what is written after a step does not grow faster than what it says."""

import json

from helpers.runs import THREE_STEPS, halted

from lwmfw import open_run
from lwmfw.testing import tiny_run


def test_the_matrices_of_many_classes_lie_beside_the_results(tmp_path, monkeypatch):
    """Those of the last step, and of steps of few classes, are in results.json."""
    (tmp_path / "plain").mkdir()
    plain = tiny_run(THREE_STEPS, tmp_path / "plain").results
    monkeypatch.setattr("lwmfw.engine.going_on.MATRIX_CLASSES", 2)
    halted(tmp_path / "large", THREE_STEPS, after=2)
    done = tiny_run(THREE_STEPS, tmp_path / "large")
    told = json.loads((done.path / "results.json").read_text())["steps"]
    whole = [step.confusion for step in plain.steps]
    assert [step["confusion"] for step in told] == [step.confusion for step in done.results.steps]
    assert [step["confusion"] for step in told] == [whole[0], {}, whole[2]]
    assert json.loads((done.path / "confusion" / "step-2.json").read_text()) == whole[1]
    assert len(list((done.path / "confusion").iterdir())) == 1
    assert open_run(done.path).results == done.results
