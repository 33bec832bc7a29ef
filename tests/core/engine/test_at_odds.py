"""What cannot be trained: two components that want the same, a loss without a gradient, a model that is all frozen."""

import re

import pytest
import torch
from helpers.strangers import Head, Stranger, told, with_hook
from torch import nn

from lwmfw import Penalty, hookimpl
from lwmfw.components import Provider
from lwmfw.errors import RunFailed
from lwmfw.testing import tiny_run


def grouping(model, **_):
    return [{"params": list(model.classifier.parameters())}]


def test_two_that_group_one_parameter_are_both_named(tmp_path):
    Grouping = with_hook("group_parameters", grouping)
    records = [Penalty(name, Grouping, provider=Provider(name, "1")) for name in ("one", "two")]
    said = (
        "two 1: two.group_parameters groups a parameter that one of one 1 groups already; leave one of them out; "
        "the run stopped in step 1"
    )
    with pytest.raises(RunFailed, match=f"^{re.escape(said)}$"):
        tiny_run({"penalties": [{"use": "one"}, {"use": "two"}]}, tmp_path, components=records)


def test_two_penalties_with_one_term_are_both_named(tmp_path):
    Term = with_hook("compute_penalty", lambda new, **_: {"term": new.logits.mean()})
    records = [Penalty(name, Term, provider=Provider(name, "1")) for name in ("one", "two")]
    said = "two 1: two.compute_penalty returned term 'term', which is a term of one of one 1 already; rename one; the "
    with pytest.raises(RunFailed, match=f"^{re.escape(said)}run stopped in step 2, epoch 1, batch 1$"):
        tiny_run({"penalties": [{"use": "one"}, {"use": "two"}]}, tmp_path, components=records)


def test_a_loss_without_a_gradient_is_the_objectives(tmp_path):
    class Detached(Stranger):
        def loss(self, logits, labels):
            return nn.functional.cross_entropy(logits.detach(), labels)

    message = told("objective", Detached, tmp_path)
    assert message == (
        "shop 1: stranger: the objective returned a loss without a gradient; compute it from the logits, undetached; "
        "the run stopped in step 1, epoch 1, batch 1"
    )


def test_logits_without_a_gradient_are_the_classifiers(tmp_path):
    class Detached(Stranger):
        def build(self, count):
            return type("Data", (Head,), {"forward": lambda self, features: Head.forward(self, features).detach()})()

    message = told("classifier", Detached, tmp_path)
    assert message.startswith("shop 1: stranger: the classifier gives logits without a gradient; compute them from ")


@pytest.mark.parametrize("hook", ["group_parameters", "before_step"])
def test_a_model_that_is_all_frozen_has_nothing_to_train(hook, tmp_path):
    Freezing = with_hook(hook, lambda model, **_: model.requires_grad_(False) and None)
    with pytest.raises(
        RunFailed,
        match=r"^phase 'main' has nothing to train: freezing of test left no .* stopped in step 1; leave some",
    ):
        tiny_run({"penalties": [{"use": "freezing"}]}, tmp_path, components=[Penalty("freezing", Freezing)])


@pytest.mark.parametrize(
    "settings", [{"lr": 10**400}, {"lr": 1001}, {"momentum": 1.0}, {"weight_decay": 2}, {"lr": True}]
)
def test_settings_of_a_group_have_the_bounds_of_training(settings, tmp_path):
    answer = with_hook("group_parameters", lambda model, **_: [{"params": list(model.parameters()), **settings}])
    (key,) = settings
    assert f"shop 1: stranger.group_parameters returned a group with {key} = " in told("penalty", answer, tmp_path)


def test_a_group_whose_rate_is_0_stays_as_it_is(tmp_path):
    seen = []

    class Still(Stranger):
        @hookimpl
        def group_parameters(self, model):
            return [{"params": [model.backbone.scale], "lr": 0}]

        @hookimpl
        def after_step(self, model):
            seen.append(model.backbone.scale.detach().clone())

    assert told("penalty", Still, tmp_path) == ""
    assert all(torch.equal(scale, torch.ones(3)) for scale in seen)
    assert seen
