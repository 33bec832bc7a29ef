"""balanced with a classifier that is drawn anew, and at a temperature (DER, Yan et al., CVPR 2021, section 3.4)."""

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lwmfw import Penalty, UserError, hookimpl
from lwmfw.testing import tiny_run
from lwmfw_plugins.phases.balanced import draw_anew

FRESH = {"use": "balanced", "epochs": 1, "fresh": True}
RECIPE = THREE_STEPS | {
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "12 exemplars", "select": {"use": "random"}},
    "phases": [FRESH],
}


class Probe:
    def __init__(self, options):
        pass

    @hookimpl
    def compute_penalty(self):
        return None


def with_probe(cls, overrides, folder):
    tiny_run(overrides | {"penalties": [{"use": "probe"}]}, folder, components=[Penalty("probe", cls)])


def test_all_rows_are_drawn_as_those_of_a_linear_layer():
    weight, bias = torch.nn.Parameter(torch.full((50, 16), 9.0)), torch.nn.Parameter(torch.full((50,), 9.0))
    state = torch.random.get_rng_state()
    draw_anew(weight, bias, torch.Generator().manual_seed(1))
    for part in (weight, bias):
        assert part.abs().max() < 16**-0.5
        assert part.std().item() == pytest.approx(16**-0.5 / 3**0.5, rel=0.2)
    first = weight.clone()
    draw_anew(weight, bias, torch.Generator().manual_seed(1))
    assert torch.equal(weight, first)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("fresh", [True, False])
def test_the_classifier_begins_the_phase_anew_where_it_is_to(fresh, tmp_path):
    trained, begun = [], []

    class Watch(Probe):
        @hookimpl
        def after_epoch(self, run):
            trained.append(run.model.classifier.weight.clone())

        @hookimpl
        def compute_penalty(self, model):
            begun.append(model.classifier.weight.clone())

    with_probe(Watch, RECIPE | {"phases": [FRESH | {"fresh": fresh}], "training": {"batch_size": 64}}, tmp_path)
    before, after = trained[1], begun[1]  # of step 2: a batch an epoch, main and then balanced
    assert torch.equal(before, after) != fresh
    assert (before == after).any(1).tolist() == [not fresh] * 4


def test_logits_are_divided_by_the_temperature_in_the_phase_alone(tmp_path):
    losses, phases = [], []

    class Watch(Probe):
        @hookimpl
        def group_parameters(self, step, phase):
            phases.append((step.index, phase.temperature))

        @hookimpl
        def compute_penalty(self, batch, new):
            losses.append([cross_entropy(new.logits / t, batch.labels).item() for t in (1.0, 5.0)])

        @hookimpl
        def after_epoch(self, means):
            if losses:
                assert means["cross_entropy"] == pytest.approx(losses[-1][phases[-1][1] == 5.0])

    recipe = RECIPE | {"phases": [FRESH | {"temperature": 5.0}], "training": {"batch_size": 64}}
    with_probe(Watch, recipe, tmp_path)
    assert phases == [(1, 1.0), (2, 1.0), (2, 5.0), (3, 1.0), (3, 5.0)]
    assert all(abs(one - five) > 1e-3 for one, five in losses)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(RECIPE, tmp_path / "whole"), interrupted(tmp_path, RECIPE, after=1)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert_close(whole.terms[3], resumed.terms[3], rtol=0, atol=0)


def test_a_classifier_without_rows_is_refused_only_where_it_is_to_be_drawn(tmp_path):
    cosine = RECIPE | {"classifier": {"use": "cosine"}}
    with pytest.raises(UserError, match=r"balanced needs 'rows', but the classifier cosine offers similarities; "):
        tiny_run(cosine, tmp_path)
    assert tiny_run(cosine | {"phases": [FRESH | {"fresh": False}]}, tmp_path).results.complete
