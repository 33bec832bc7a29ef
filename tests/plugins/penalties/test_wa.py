"""wa: the distillation, the alignment of weight vectors, the clipping, and what a run makes of them."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lwmfw import Observer, Step, hookimpl
from lwmfw.errors import UserError
from lwmfw.testing import outputs_pair, tiny_run
from lwmfw_plugins.penalties.wa import AlignmentOptions, WeightAlignment, alignment

SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}
WA = THREE_STEPS | SEEN | {"penalties": [{"use": "wa"}]}


def distillation_by_image(new, old, temperature):
    """Minus the sum over the old classes of q* log q, image by image, averaged."""
    known, total = old.shape[1], 0.0
    for ours, theirs in zip(new.tolist(), old.tolist(), strict=True):
        q, known_q = ([math.exp(score / temperature) for score in row[:known]] for row in (ours, theirs))
        total -= sum(a / sum(known_q) * math.log(b / sum(q)) for a, b in zip(known_q, q, strict=True))
    return total / len(new)


@pytest.mark.parametrize(("known", "temperature"), [(2, 2.0), (3, 5.0)])
def test_with_the_objective_the_term_is_the_papers_loss_over_the_share_of_new_classes(known, temperature):
    pair, share = outputs_pair(), known / 4
    old = replace(
        pair.old, logits=torch.randn(8, known, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    penalty = WeightAlignment(AlignmentOptions(temperature=temperature))
    term = penalty.compute_penalty(Step(2, range(known, 4), range(4), 2), pair.new, old)["wa"]
    ce = cross_entropy(pair.new.logits, pair.batch.labels)
    distilled = distillation_by_image(pair.new.logits, old.logits, temperature)
    assert_close((1 - share) * (ce + term), (1 - share) * ce + share * distilled)


def test_gamma_is_the_old_mean_length_over_the_new_one():
    weight = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, 0.0], [0.0, 8.0]], dtype=torch.float64)
    assert alignment(weight, 2) == ((5 + 1) / 2) / ((10 + 0 + 8) / 3)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_aligned_vectors_are_as_long_on_average(known, added, seed):
    weight = torch.randn(known + added, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weight[known:] *= alignment(weight, known)
    lengths = weight.norm(dim=1)
    assert_close(lengths[known:].mean(), lengths[:known].mean())
    assert_close(alignment(weight, known), torch.ones((), dtype=torch.float64))


def test_vectors_of_zeros_stay_zeros():
    weight = torch.cat([torch.ones(2, 3), torch.zeros(2, 3)])
    assert torch.equal(alignment(weight, 2) * weight[2:], torch.zeros(2, 3))


class Watch:
    """Keeps the classifier after every update, and at the end of every step."""

    def __init__(self, options):
        self.updates, self.steps = [], {}

    @hookimpl
    def after_update(self, model):
        self.updates.append({name: value.clone() for name, value in model.classifier.state_dict().items()})

    @hookimpl
    def after_step(self, step, model, result):
        trained, kept = self.updates[-1], {k: v.clone() for k, v in model.classifier.state_dict().items()}
        self.steps[step.index] = (trained, kept, result.extra)


def watched(folder, recipe):
    observers = {"observers": [{"use": "watch"}]}
    run = tiny_run(recipe | observers, folder, components=[Observer("watch", Watch)])
    return run, run.run.assembly.components["watch"].instance


def test_a_step_ends_with_aligned_rows_and_biases_as_they_were(tmp_path):
    run, watch = watched(tmp_path, WA)
    assert [sorted(terms) for terms in run.terms.values()] == [["cross_entropy"], *[["cross_entropy", "wa"]] * 2]
    for index, (trained, kept, extra) in watch.steps.items():
        known = 2 * index - 2
        assert torch.equal(kept["bias"], trained["bias"])
        assert torch.equal(kept["weight"][:known], trained["weight"][:known])
        if index == 1:
            assert torch.equal(kept["weight"], trained["weight"])
            assert "wa" not in extra
            continue
        gamma = alignment(trained["weight"].double(), known)
        assert extra["wa"]["gamma"] == pytest.approx(float(gamma))
        assert abs(gamma - 1) > 1e-3
        assert_close(kept["weight"][known:], trained["weight"][known:] * gamma.float())


@pytest.mark.parametrize("clip", [True, False])
def test_weights_are_kept_from_zero_up_after_every_update_where_it_is_asked_for(tmp_path, clip):
    _, watch = watched(tmp_path, WA | {"penalties": [{"use": "wa", "clip": clip}]})
    assert len(watch.updates) == 6
    assert all((state["weight"] >= 0).all() == clip for state in watch.updates)
    assert any((state["bias"] < 0).any() for state in watch.updates)


def test_the_first_step_is_anothers_where_nothing_is_clipped():
    assert WeightAlignment(AlignmentOptions(clip=False)).spares_first_step
    assert not WeightAlignment(AlignmentOptions()).spares_first_step


def test_the_old_model_of_the_next_step_is_the_aligned_one(tmp_path):
    given_old = {}

    class Listen:
        needs = frozenset({"old"})

        def __init__(self, options):
            pass

        @hookimpl
        def after_training(self, step, old):
            if old is not None:
                given_old[step.index] = old.classifier.weight

    observers = {"observers": [{"use": "watch"}, {"use": "listen"}]}
    run = tiny_run(WA | observers, tmp_path, components=[Observer("watch", Watch), Observer("listen", Listen)])
    watch = run.run.assembly.components["watch"].instance
    assert all(torch.equal(given_old[index], watch.steps[index - 1][1]["weight"]) for index in (2, 3))


def test_it_runs_with_exemplars_too(tmp_path):
    memory = {"memory": {"budget": "12 exemplars", "select": {"use": "herding"}}}
    assert tiny_run(WA | memory, tmp_path).results.complete


def test_a_classifier_without_rows_is_refused_in_words(tmp_path):
    with pytest.raises(
        UserError, match=r"wa needs 'rows', but the classifier cosine offers similarities.*; choose anoth"
    ):
        tiny_run(WA | {"classifier": {"use": "cosine"}}, tmp_path)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(WA, tmp_path / "whole"), interrupted(tmp_path, WA, after=2)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert [step.extra for step in whole.results.steps] == [step.extra for step in resumed.results.steps]
