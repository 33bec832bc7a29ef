"""Baselines: what a frozen backbone leaves as it was."""

import pytest
import torch

from lwmfw import Observer, hookimpl
from lwmfw.testing import tiny_run

STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("batchnorm", ["train", "always"])
def test_a_frozen_backbone_learns_nothing_and_its_statistics_stay_but_where_a_phase_moves_them(batchnorm, tmp_path):
    after = {}

    class Keep:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, step, model):
            after[step.index] = {name: value.clone() for name, value in model.state_dict().items()}

    three_steps = {"data": {"use": "synthetic", "classes": 6}, "scenario": {"first": 2, "increment": 2}}
    freeze = {"penalties": [{"use": "freeze", "after": 2}], "observers": [{"use": "keep"}]}
    tiny_run(
        three_steps | freeze | {"training": {"batchnorm": batchnorm}}, tmp_path, components=[Observer("keep", Keep)]
    )
    for step, learns in ((2, True), (3, False)):
        before, now = after[step - 1], after[step]
        backbone = [name for name in now if name.startswith("backbone.")]
        assert any("running_mean" in name for name in backbone)
        moved = {name.rpartition(".")[2] for name in backbone if not torch.equal(before[name], now[name])}
        assert "weight" in moved if learns else moved == (STATISTICS if batchnorm == "always" else set())
        assert not torch.equal(before["classifier.weight"], now["classifier.weight"][: 2 * step - 2])
