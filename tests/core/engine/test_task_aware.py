"""Accuracy where the choice is among the classes of the image's own step."""

import pytest
import torch
from helpers.runs import THREE_STEPS

from lwmfw import Readout, hookimpl
from lwmfw.testing import tiny_run


class Twisted:
    """Finds the right class within each step, and a class of the first step before all others."""

    def __init__(self, options):
        pass

    @hookimpl
    def before_run(self, run):
        self.run = run

    def scores(self, features):
        test = self.run.data.test.of_classes(range(self.run.model.classes))
        labels = test.labels[self.given : self.given + len(features)]
        self.given += len(features)
        scores = torch.nn.functional.one_hot(labels, self.run.model.classes).float()
        scores[:, :2] += 2
        return scores

    @hookimpl
    def after_training(self):
        self.given = 0


def test_a_right_class_within_its_step_is_right_whatever_the_other_steps_say(tmp_path):
    run = tiny_run(
        {**THREE_STEPS, "readouts": [{"use": "twisted"}]}, tmp_path, components=[Readout("twisted", Twisted)]
    )
    last = run.results.steps[-1]
    assert last.accuracy["twisted"] == pytest.approx(2 / 6)
    assert last.accuracy_task_aware["twisted"] == 1.0
    assert run.results.task_aware_accuracy == {"twisted": 1.0}
    assert run.results.steps[0].accuracy_task_aware == run.results.steps[0].accuracy


def test_it_is_at_least_the_accuracy_among_all_classes(tmp_path):
    for step in tiny_run(THREE_STEPS, tmp_path).results.steps:
        assert step.accuracy_task_aware["cnn"] >= step.accuracy["cnn"]
