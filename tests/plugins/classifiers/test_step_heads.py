"""step-heads: a head sees the features there were when it came, and learns in its own step alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmfw import Observer, hookimpl
from lwmfw.testing import tiny_run
from lwmfw_plugins.classifiers.step_heads import StepHeads

RECIPE = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
    "classifier": {"use": "step-heads"},
    "objective": {"use": "cross_entropy", "over": "new"},
    "penalties": [{"use": "freeze"}],
    "training": {"weight_decay": 0.01},
}


def built(*growths, seed=0):
    """A head over 3 features that has grown by pairs of further features and classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head, features = StepHeads(None).build(3), 3
        for more, classes in growths:
            features += more
            head.resize(features)
            head.grow(classes)
    return head, features


def test_logits_are_a_linear_layer_per_step_over_the_features_it_knew():
    head, features = built((0, 2), (4, 1), (2, 3))
    head.double()
    images = torch.randn(5, features, dtype=torch.float64)
    actual = head(images)
    for image, found in zip(images.tolist(), actual.tolist(), strict=True):
        expected = [
            bias + sum(w * f for w, f in zip(row, image[:known], strict=True))
            for each, known in zip(head.heads, (3, 7, 9), strict=True)
            for row, bias in zip(each.weight.tolist(), each.bias.tolist(), strict=True)
        ]
        assert found == pytest.approx(expected)


GROWTHS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=2, max_size=5)


@given(GROWTHS, st.integers(0, 2**31))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_later_features_and_classes_change_no_logit_by_a_bit(growths, seed):
    *before, (more, classes) = growths
    head, features = built(*before, seed=seed)
    images = torch.randn(4, features + more, generator=torch.Generator().manual_seed(seed))
    expected = head(images)
    head.resize(features + more)
    head.grow(classes)
    assert torch.equal(head(images)[:, :-classes], expected)
    assert head(images).shape == (4, sum(count for _, count in growths))


def test_growing_adds_parameters_and_keeps_the_others():
    head, features = built((0, 2))
    (first,) = head.heads
    head.resize(features + 2)
    head.grow(3)
    assert head.heads[0] is first
    assert [tuple(each.weight.shape) for each in head.heads] == [(2, 3), (3, 5)]


@pytest.mark.parametrize("over", ["new", "seen"])
def test_a_head_learns_in_its_own_step_alone(over, tmp_path):
    states = []

    class Keep:
        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, model):
            states.append({name: value.clone() for name, value in model.classifier.state_dict().items()})

        @hookimpl
        def after_step(self, model):
            states.append({name: value.clone() for name, value in model.classifier.state_dict().items()})

    objective = {"use": "cross_entropy", "over": over}
    tiny_run(
        RECIPE | {"objective": objective, "observers": [{"use": "keep"}]}, tmp_path, components=[Observer("keep", Keep)]
    )
    assert len(states) == 2 * 3
    for begun, ended in zip(states[::2], states[1::2], strict=True):
        learned = {name for name, value in ended.items() if not torch.equal(value, begun[name])}
        newest = max(name.split(".")[1] for name in ended)
        assert learned == {f"heads.{newest}.weight", f"heads.{newest}.bias"}
