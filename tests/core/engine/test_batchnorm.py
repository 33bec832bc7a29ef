"""`training.batchnorm`: whether BatchNorm's statistics follow the batches of a step, and what learns all the same."""

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch import nn

from lwmfw import Model, Observer, evaluating, hookimpl
from lwmfw.errors import UserError
from lwmfw.testing import tiny_run

FIXED = THREE_STEPS | {"training": {"batchnorm": "eval", "first": {"batchnorm": "train"}}}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Keep:
    """Keeps the model's state after every step, and the modes its BatchNorm is in."""

    states, modes = None, None

    def __init__(self, options):
        Keep.states, Keep.modes = {}, []

    @hookimpl
    def after_update(self, step, model):
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        Keep.modes.append((step.index, model.training, {norm.training for norm in norms}))

    @hookimpl
    def after_epoch(self, run, step):
        with evaluating(run.model):  # comes back to the mode of the phase
            pass

    @hookimpl
    def after_training(self, step, model):
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        Keep.modes.append((step.index, model.training, {norm.training for norm in norms}))

    @hookimpl
    def after_step(self, step, model):
        Keep.states[step.index] = {name: value.clone() for name, value in model.state_dict().items()}


def watched(recipe, folder):
    """A run of two epochs a step, and the model's state after each step."""
    folder.mkdir()
    training = {"epochs": 2, **recipe.get("training", {})}
    observed = recipe | {"training": training, "observers": [{"use": "keep"}]}
    return tiny_run(observed, folder, components=[Observer("keep", Keep)]), Keep.states


def changed(before, now, ends):
    return {name for name in before if name.endswith(ends) and not torch.equal(before[name], now[name])}


def test_statistics_stay_where_they_are_to_stay_and_the_rest_learns(tmp_path):
    _, states = watched(FIXED, tmp_path / "eval")
    modes = Keep.modes
    for step in (2, 3):
        assert not changed(states[step - 1], states[step], STATISTICS)
        norms = {name.rpartition(".")[0] for name in states[1] if name.endswith("running_mean")}
        affine = {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
        assert changed(states[step - 1], states[step], ("weight", "bias")) >= affine
    *updates, after = [mode for step, *mode in modes if step == 2]
    assert updates == [[True, {False}]] * len(updates)  # the model in training mode, its BatchNorm not
    assert len(updates) == 2 * 2
    assert after == [True, {True}]
    assert {tuple(norms) for step, _, norms in modes if step == 1} == {(True,)}


def test_statistics_follow_the_batches_by_default(tmp_path):
    _, states = watched(THREE_STEPS, tmp_path / "train")
    statistics = {name for name in states[1] if name.endswith(STATISTICS)}
    assert statistics
    for step in (2, 3):
        assert changed(states[step - 1], states[step], STATISTICS) == statistics


def test_the_first_step_is_trained_alike(tmp_path):
    _, fixed = watched(FIXED, tmp_path / "eval")
    _, follows = watched(THREE_STEPS, tmp_path / "train")
    assert all(torch.equal(value, follows[1][name]) for name, value in fixed[1].items())
    assert not torch.equal(fixed[2]["classifier.weight"], follows[2]["classifier.weight"])


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(FIXED, tmp_path / "whole"), interrupted(tmp_path, FIXED, after=2)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_any_batchnorm_of_the_model_is_meant_and_nothing_else():
    layers = [nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.Dropout(), nn.GroupNorm(1, 2)]
    model = Model(nn.Sequential(nn.BatchNorm2d(2), *layers), nn.Linear(2, 2))
    model.extras["own"] = nn.BatchNorm1d(2)
    model.batchnorm = "eval"
    for module in model.train().modules():
        assert module.training != isinstance(module, nn.modules.batchnorm._BatchNorm), module
    assert not any(module.training for module in model.eval().modules())
    model.batchnorm = "train"
    assert all(module.training for module in model.train().modules())


def test_another_value_is_refused_by_its_key(tmp_path):
    with pytest.raises(UserError, match=r"tiny\.toml:\d+: training\.batchnorm: .*'train', 'eval' or 'always'"):
        tiny_run({"training": {"batchnorm": "frozen"}}, tmp_path)
