"""The losses of PODNet, UCIR and the thesis: formulas against slow loops in float64, and what each depends on."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lwmfw import Step, UserError
from lwmfw.testing import outputs_pair, penalty_terms, tiny_run
from lwmfw_plugins.classifiers._heads import CosineHead
from lwmfw_plugins.penalties._adaptive import adaptive_factor
from lwmfw_plugins.penalties._energies import Energies
from lwmfw_plugins.penalties.kd import KDOptions, SoftmaxDistillation, softmax_divergence
from lwmfw_plugins.penalties.less_forget import LessForget, LessForgetOptions, cosine_distance
from lwmfw_plugins.penalties.margin_ranking import MarginRanking, MarginRankingOptions, margin_ranking
from lwmfw_plugins.penalties.pod import PodOptions, PooledOutputsDistillation, pod_distance
from lwmfw_plugins.penalties.pod_flat import PodFlat, PodFlatOptions, squared_distance

PENALTIES = {
    "POD": (PooledOutputsDistillation, PodOptions),
    "POD-flat": (PodFlat, PodFlatOptions),
    "less-forget": (LessForget, LessForgetOptions),
    "margin-ranking": (MarginRanking, MarginRankingOptions),
    "KD": (SoftmaxDistillation, KDOptions),
}
MODES = ["spatial", "width", "height", "channels", "gap", "pixel"]
PUBLISHED = {"square": True, "normalise": True, "squared_norm": False}
PRINTED = {"square": False, "normalise": False, "squared_norm": True}
MEMORY = {"budget": "4 per class", "select": {"use": "random"}}


def term(name, pair, **options):
    build, options_class = PENALTIES[name]
    return penalty_terms(build(options_class(**options)), pair)[name]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# the adaptive factor


@pytest.mark.parametrize(("form", "square"), [("none", 1), ("podnet", 60 / 10), ("ucir", 5), ("ucir-paper", 1 / 5)])
def test_the_adaptive_factor_after_fifty_classes_with_ten_more(form, square):
    assert adaptive_factor(form, Step(2, range(50, 60), range(60), 6)) == pytest.approx(math.sqrt(square))


@pytest.mark.parametrize("form", ["none", "podnet", "ucir", "ucir-paper"])
@pytest.mark.parametrize("name", PENALTIES)
def test_every_term_is_weight_times_adaptive_factor_times_loss(name, form):
    pair = replace(outputs_pair(), step=Step(2, range(2, 3), range(3), 2))
    plain = term(name, pair, weight=1.0, adaptive="none")
    assert plain > 0
    assert_close(term(name, pair, weight=0.5, adaptive=form), 0.5 * adaptive_factor(form, pair.step) * plain)


def test_defaults_are_what_the_published_numbers_need():
    assert {name: options().adaptive for name, (_, options) in PENALTIES.items()} == {
        "POD": "podnet", "POD-flat": "podnet", "less-forget": "ucir", "margin-ranking": "none", "KD": "none",
    }  # fmt: skip
    assert PodOptions().model_dump(include=set(PUBLISHED)) == PUBLISHED


# POD


def pooled_by_loops(image, mode):
    """The vector of one image (C, H, W), entry by entry."""
    channels, height, width = image.shape
    c, h, w = range(channels), range(height), range(width)
    over_width = [sum(image[k, i, j] for j in w) for k in c for i in h]
    over_height = [sum(image[k, i, j] for i in h) for k in c for j in w]
    return torch.stack({
        "width": over_width,
        "height": over_height,
        "spatial": over_width + over_height,
        "channels": [sum(image[k, i, j] for k in c) for i in h for j in w],
        "gap": [sum(image[k, i, j] for i in h for j in w) / (height * width) for k in c],
        "pixel": [image[k, i, j] for k in c for i in h for j in w],
    }[mode])  # fmt: skip


def pod_by_loops(new, old, mode, *, square, normalise, squared_norm):
    total = 0.0
    for images in zip(new, old, strict=True):
        a, b = (pooled_by_loops(image**2 if square else image, mode) for image in images)
        if normalise:
            a, b = (v / sum(x**2 for x in v) ** 0.5 for v in (a, b))
        distance = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        total = total + (distance if squared_norm else distance**0.5)
    return total / len(new)


@pytest.mark.parametrize(
    "forms", [PUBLISHED, PRINTED, PUBLISHED | {"square": False}], ids=["published", "printed", "not squared"]
)
@pytest.mark.parametrize("mode", MODES)
def test_pod_is_its_formula_in_value_and_gradient(mode, forms):
    new, old = random(3, 2, 4, 3).requires_grad_(), random(3, 2, 4, 3, seed=1)
    loss, reference = pod_distance(new, old, mode, **forms), pod_by_loops(new, old, mode, **forms)
    assert_close(loss, reference)
    assert_close(torch.autograd.grad(loss, new), torch.autograd.grad(reference, new))


@pytest.mark.parametrize(("mode", "axis"), [("width", 3), ("height", 2), ("channels", 1)])
def test_a_mode_does_not_see_where_along_its_axis_something_was(mode, axis):
    maps, other = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    moved = maps.roll(1, axis)
    for name in ("width", "height", "channels"):
        seen = not torch.allclose(pod_distance(maps, other, name), pod_distance(moved, other, name))
        assert seen is (name != mode)


def test_printed_spatial_is_the_sum_of_width_and_height():
    new, old = random(3, 2, 4, 5), random(3, 2, 4, 5, seed=1)
    spatial, width, height = (pod_distance(new, old, mode, **PRINTED) for mode in ("spatial", "width", "height"))
    assert_close(spatial, width + height)


@pytest.mark.parametrize("mode", MODES)
def test_equal_maps_have_no_distance_and_no_gradient(mode):
    maps = random(3, 2, 4, 4).requires_grad_()
    loss = pod_distance(maps, maps.detach().clone(), mode)
    (gradient,) = torch.autograd.grad(loss, maps)
    assert loss == 0
    assert gradient.abs().max() == 0  # and not 0/0


def test_maps_that_are_zero_are_harmless():
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = pod_distance(maps, torch.ones(2, 3, 4, 4), "spatial")
    (gradient,) = torch.autograd.grad(loss, maps)
    assert_close(loss, torch.tensor(1.0))
    assert gradient.isfinite().all()


def test_pod_averages_the_stages_before_their_relu():
    pair = outputs_pair()
    first, second = (pod_distance(a, b, "spatial") for a, b in zip(pair.new.raw_maps, pair.old.raw_maps, strict=True))
    assert_close(term("POD", pair, weight=1.0, adaptive="none"), (first + second) / 2)
    assert_close(term("POD", pair, weight=1.0, adaptive="none", layers="all-but-last"), first)


def test_all_but_the_last_of_one_stage_is_refused():
    penalty = PooledOutputsDistillation(PodOptions(layers="all-but-last"))
    with pytest.raises(UserError) as refused:
        penalty.before_run(SimpleNamespace(model=SimpleNamespace(stages=1)))
    assert str(refused.value) == 'layers: the backbone has one stage, which is the last; set "all"'


@pytest.mark.parametrize("mode", MODES)
def test_maps_in_bfloat16_are_compared_in_float32(mode):
    new, old = (random(3, 2, 8, 8, seed=seed).bfloat16() for seed in (0, 1))
    actual = pod_distance(new, old, mode)
    assert actual.dtype == torch.float32
    assert_close(actual, pod_distance(new.float(), old.float(), mode), rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_energies_are_sums_of_squares_and_have_two_derivatives(layout):
    maps = random(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    over_width, over_height = Energies.apply(maps)
    assert_close(over_width, maps.square().sum(3).permute(0, 2, 1))
    assert_close(over_height, maps.square().sum(2).permute(0, 2, 1))
    assert torch.autograd.gradcheck(Energies.apply, maps)
    assert torch.autograd.gradgradcheck(Energies.apply, maps)


def test_the_gradient_of_maps_in_bfloat16_is_rounded_once():
    rough = random(2, 3, 4, 5).bfloat16().requires_grad_()
    exact = rough.detach().float().requires_grad_()
    sum(sums.pow(2).sum() for sums in Energies.apply(rough)).backward()
    sum(sums.pow(2).sum() for sums in Energies.apply(exact)).backward()
    assert_close(rough.grad, exact.grad.bfloat16(), rtol=0, atol=0)


@given(st.sampled_from(MODES), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31), st.floats(1e-2, 1e2))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_normalised_distances_are_bounded_and_do_not_see_the_scale_of_maps(mode, channels, side, seed, scale):
    new, old = random(2, channels, side, side + 1, seed=seed), random(2, channels, side, side + 1, seed=seed + 1)
    for square, most in ((True, math.sqrt(2)), (False, 2)):
        distance = pod_distance(new, old, mode, square=square)
        assert 0 <= distance <= most + 1e-9
        assert_close(pod_distance(scale * new, old, mode, square=square), distance)


# the features


def test_less_forget_is_one_minus_the_cosine():
    new, old, total = random(4, 5), random(4, 5, seed=1), 0.0
    for f, g in zip(new.tolist(), old.tolist(), strict=True):
        total += 1 - sum(map(math.prod, zip(f, g, strict=True))) / (math.hypot(*f) * math.hypot(*g))
    assert_close(cosine_distance(new, old), torch.tensor(total / 4, dtype=torch.float64))


def test_pod_flat_as_printed_is_twice_the_published_form():
    new, old, total = random(4, 5), random(4, 5, seed=1), 0.0
    for f, g in zip(new.tolist(), old.tolist(), strict=True):
        total += sum((x / math.hypot(*f) - y / math.hypot(*g)) ** 2 for x, y in zip(f, g, strict=True))
    assert_close(squared_distance(new, old), torch.tensor(total / 4, dtype=torch.float64))
    assert_close(squared_distance(new, old), 2 * cosine_distance(new, old))
    pair = outputs_pair()
    assert_close(term("POD-flat", pair, form="squared"), 2 * term("POD-flat", pair))


# margin ranking


@pytest.mark.parametrize("hardest", [1, 2, 9], ids=["one", "two", "more than there are"])
def test_margin_ranking_is_its_formula(hardest):
    similarities = random(6, 5)
    labels, exemplars = torch.tensor([0, 3, 1, 1, 4, 0]), torch.tensor([True, False, True, True, False, True])
    found = []
    for row, label, exemplar in zip(similarities.tolist(), labels.tolist(), exemplars.tolist(), strict=True):
        if exemplar:
            found += [max(0, 0.5 - row[label] + s) for s in sorted(row[2:], reverse=True)[:hardest]]
    expected = torch.tensor(sum(found) / len(found), dtype=torch.float64)
    assert_close(margin_ranking(similarities, labels, exemplars, 2, 0.5, hardest), expected)


def test_a_batch_without_exemplars_has_a_term_that_pulls_nowhere():
    similarities = random(3, 4).requires_grad_()
    loss = margin_ranking(similarities, torch.tensor([2, 3, 2]), torch.zeros(3, dtype=torch.bool), 2, 0.5, 2)
    (gradient,) = torch.autograd.grad(loss, similarities)
    assert loss == 0
    assert gradient.abs().max() == 0


def test_margin_ranking_pulls_exemplars_alone_and_is_before_the_learned_scale():
    pair = outputs_pair(head=CosineHead(6, 3.0))
    loss = term("margin-ranking", pair, margin=4.0)  # more than any two cosines differ by
    (gradient,) = torch.autograd.grad(loss, pair.new.features, retain_graph=True)
    pulled = gradient.abs().amax(1) > 0
    assert torch.equal(pulled, pair.batch.from_memory)
    (of_scale,) = torch.autograd.grad(loss, pair.model.classifier.scale, allow_unused=True)
    assert of_scale is None


def test_similarities_are_the_logits_before_the_learned_scale():
    pair = outputs_pair(head=CosineHead(6, 3.0))
    assert_close(pair.model.classifier.scale * pair.new.similarities(), pair.new.logits)


def test_a_classifier_that_offers_no_similarities_is_refused(tmp_path):
    recipe = {"objective": {"over": "seen"}, "memory": MEMORY, "penalties": [{"use": "margin-ranking"}]}
    with pytest.raises(UserError) as refused:
        tiny_run(recipe, tmp_path)
    assert str(refused.value).endswith(
        ": margin-ranking needs 'similarities', but the classifier linear offers resize, rows; choose another "
        "classifier, such as cosine"
    )


# KD


def softmax(row, temperature):
    powers = [math.exp(x / temperature) for x in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("reduction", "divisor"), [("batchmean", 3), ("elementwise", 3 * 4)])
def test_kd_is_the_divergence_of_softmaxes_at_a_temperature(reduction, divisor, square):
    new, old, total = 3 * random(3, 4), 3 * random(3, 4, seed=1), 0.0
    for ours, theirs in zip(new.tolist(), old.tolist(), strict=True):
        for p, q in zip(softmax(ours, 2.5), softmax(theirs, 2.5), strict=True):
            total += q * math.log(q / p)
    expected = total / divisor * (2.5**2 if square else 1)
    actual = softmax_divergence(new, old, 2.5, reduction, square=square)
    assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_kd_looks_at_old_classes_only_which_are_the_first():
    pair = outputs_pair()
    (gradient,) = torch.autograd.grad(term("KD", pair), pair.new.logits)
    assert gradient[:, :2].abs().min() > 0
    assert gradient[:, 2:].abs().max() == 0


def test_kd_is_of_logits_or_of_similarities_as_it_is_told(tmp_path):
    pair = outputs_pair(head=CosineHead(6, 3.0))
    for of, read in (("logits", lambda outputs: outputs.logits), ("similarities", lambda o: o.similarities())):
        ours, theirs = (read(outputs)[:, :2] for outputs in (pair.new, pair.old))
        assert_close(term("KD", pair, of=of), 0.9 * softmax_divergence(ours, theirs, 10.0, "batchmean", square=True))
    assert term("KD", pair, of="logits") > 2 * term("KD", pair, of="similarities")
    with pytest.raises(UserError, match=r"KD needs 'similarities', but the classifier linear offers"):
        tiny_run({"penalties": [{"use": "KD", "of": "similarities"}]}, tmp_path)


# all of them


def test_no_loss_waits_for_the_device():
    # a tensor on "meta" has no values: whatever asks for one fails
    maps, rows = (torch.empty(4, 3, 5, 5, device="meta"),) * 2, (torch.empty(4, 6, device="meta"),) * 2
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    losses = [
        *(pod_distance(*maps, mode) for mode in MODES),
        cosine_distance(*rows),
        squared_distance(*rows),
        margin_ranking(rows[0], labels, labels > 0, 2, 0.5, 2),
        softmax_divergence(*rows, 10.0, "batchmean", square=True),
    ]
    assert {loss.shape for loss in losses} == {torch.Size()}


def test_the_whole_family_trains_together(tmp_path):
    recipe = {
        "classifier": {"use": "cosine"},
        "objective": {"use": "nca"},
        "memory": MEMORY,
        "penalties": [{"use": name} for name in PENALTIES],
    }
    terms = tiny_run(recipe, tmp_path).terms
    assert list(terms[1]) == ["nca"]
    assert list(terms[2]) == ["nca", *PENALTIES]
    assert all(math.isfinite(value) for value in terms[2].values())
