"""Baselines: what a frozen backbone leaves as it was."""

import torch

from lwmfw import Observer, hookimpl
from lwmfw.testing import tiny_run


def test_a_frozen_backbone_learns_nothing_and_its_statistics_stay(tmp_path):
    after = {}

    class Keep:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, step, model):
            after[step.index] = {name: value.clone() for name, value in model.state_dict().items()}

    three_steps = {"data": {"use": "synthetic", "classes": 6}, "scenario": {"first": 2, "increment": 2}}
    freeze = {"penalties": [{"use": "freeze", "after": 2}], "observers": [{"use": "keep"}]}
    tiny_run(three_steps | freeze, tmp_path, components=[Observer("keep", Keep)])
    for step, learns in ((2, True), (3, False)):
        before, now = after[step - 1], after[step]
        backbone = [name for name in now if name.startswith("backbone.")]
        assert any("running_mean" in name for name in backbone)
        assert all(torch.equal(before[name], now[name]) for name in backbone) != learns
        assert not torch.equal(before["classifier.weight"], now["classifier.weight"][: 2 * step - 2])
