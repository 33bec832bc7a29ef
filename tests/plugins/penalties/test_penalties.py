"""L_D and L_AD: formulas against slow references in float64, gradients, and what they must not depend on."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lwmfw import UserError
from lwmfw.api import planned_run
from lwmfw.assembly.assemble import assemble
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import outputs_pair, penalty_terms, tiny_recipe, tiny_run
from lwmfw_plugins._attention import attention, check_positions, pooled_attention
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead, ProxyHead
from lwmfw_plugins.penalties.l_ad import AttentionDistillation, AttentionOptions, attention_distance
from lwmfw_plugins.penalties.l_d import Distillation, DistillationOptions, sigmoid_distillation, softmax_distillation

HEADS = {
    "linear": lambda: LinearHead(6),
    "cosine": lambda: CosineHead(6, 3.0),
    "proxies": lambda: ProxyHead(6, 3.0, proxies=3, scaling=1.0, gamma=1.0, learned_scale=True),
}


def l_ad(pair, **options):
    return penalty_terms(AttentionDistillation(AttentionOptions(**options)), pair)["L_AD"]


def gradients(loss, model):
    """The gradient of every parameter; zero where the loss does not depend on it."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def grad_cam(model, images, classes, stage, *, create_graph):
    """Grad-CAM as the paper defines it: a backward pass from the score to the map, for the whole network."""
    out = model(images)
    score = sum(out.logits[i, c] for i, c in enumerate(classes.tolist()))
    (gradient,) = torch.autograd.grad(score, out.maps[stage], create_graph=create_graph)
    alpha = gradient.mean((2, 3))
    q = torch.stack(
        [sum(alpha[i, k] * out.maps[stage][i, k] for k in range(alpha.shape[1])) for i in range(len(alpha))]
    )
    return q.relu().flatten(1)


def reference_l_ad(pair, stage, distance="l1", eps=1e-6):
    """L_AD by two whole backward passes with second-order graphs, image by image."""
    classes = pair.new.logits[:, :2].argmax(1)
    ours = grad_cam(pair.model, pair.batch.images, classes, stage, create_graph=True)
    theirs = grad_cam(pair.old_model, pair.batch.images.clone().requires_grad_(), classes, stage, create_graph=False)
    total = 0.0
    for q, old_q in zip(ours, theirs.detach(), strict=True):
        a, b = (v / torch.sqrt((v**2).sum() + eps**2) for v in (q, old_q))
        total = total + sum((x - y).abs() if distance == "l1" else (x - y) ** 2 for x, y in zip(a, b, strict=True))
    return total / len(ours)


def test_l_d_is_the_full_binary_cross_entropy_summed_over_classes():
    rng = torch.Generator().manual_seed(0)
    new, old = (3 * torch.randn(3, 4, generator=rng, dtype=torch.float64) for _ in range(2))

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    pairs = [(sigmoid(a), sigmoid(b)) for a, b in zip(new.flatten().tolist(), old.flatten().tolist(), strict=True)]
    expected = -sum(q * math.log(p) + (1 - q) * math.log(1 - p) for p, q in pairs) / 3
    assert_close(sigmoid_distillation(new, old), torch.tensor(expected, dtype=torch.float64))


def test_l_d_with_softmax_is_the_cross_entropy_at_a_temperature():
    rng = torch.Generator().manual_seed(0)
    new, old = (3 * torch.randn(3, 4, generator=rng, dtype=torch.float64) for _ in range(2))

    def softmax(row, t):
        powers = [math.exp(x / t) for x in row]
        return [p / sum(powers) for p in powers]

    rows = zip(new.tolist(), old.tolist(), strict=True)
    expected = -sum(q * math.log(p) for n, o in rows for p, q in zip(softmax(n, 2.5), softmax(o, 2.5), strict=True)) / 3
    assert_close(softmax_distillation(new, old, 2.5), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_l_d_is_stationary_where_the_scores_are_equal(form):
    pair = outputs_pair(equal=True)
    loss = penalty_terms(Distillation(DistillationOptions(form=form)), pair)["L_D"]
    assert max(float(g.abs().max()) for g in gradients(loss, pair.model)) < 1e-9


def test_l_d_looks_at_old_classes_only():
    pair = outputs_pair()
    loss = penalty_terms(Distillation(DistillationOptions()), pair)["L_D"]
    (gradient,) = torch.autograd.grad(loss, pair.new.logits)
    assert gradient[:, :2].abs().min() > 0
    assert gradient[:, 2:].abs().max() == 0


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("head", HEADS)
def test_closed_form_equals_autograd_in_value_and_in_every_gradient(head, distance, training):
    pair = outputs_pair(3, head=HEADS[head](), training=training)
    loss, reference = l_ad(pair, distance=distance), reference_l_ad(pair, -1, distance)
    assert_close(loss, reference, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(loss, pair.model), gradients(reference, pair.model), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("layer", [1, 2])
def test_any_layer_equals_autograd_in_value_and_in_every_gradient(layer, training):
    pair = outputs_pair(3, training=training)
    loss, reference = l_ad(pair, layer=layer), reference_l_ad(pair, layer - 1)
    assert_close(loss, reference, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(loss, pair.model), gradients(reference, pair.model), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
def test_the_last_stage_by_autograd_is_the_pooled_map_in_closed_form(head):
    pair = outputs_pair(5, head=HEADS[head]())
    assert_close(l_ad(pair, layer=2), l_ad(pair), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["pooled", 1])
def test_the_gradient_agrees_with_finite_differences(layer):
    # the new model's weights are moved along a random direction; L1 has kinks, but none lies this near
    pair = outputs_pair(7)
    loss = l_ad(pair, layer=layer)
    rng = torch.Generator().manual_seed(0)
    parameters = list(pair.model.parameters())
    direction = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients(loss, pair.model), direction, strict=True))

    def moved(step):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(step * d)
        value = float(l_ad(pair.subset(slice(None)), layer=layer).detach())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(step * d)
        return value

    assert float(slope.detach()) == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("layer", ["pooled", 1])
def test_the_gradient_reaches_the_new_model_and_never_the_old(layer):
    pair = outputs_pair()
    l_ad(pair, layer=layer).backward()
    # a bias after the map shifts what is added, not what a channel weighs: at layer 1 it has no gradient
    reached = [p for name, p in pair.model.backbone.named_parameters() if layer == "pooled" or name != "second.1.bias"]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in reached)
    assert pair.model.classifier.weight.grad.abs().max() > 0  # through the channel weights
    for tensor in (*pair.old_model.parameters(), pair.old.logits, pair.old.pooled, *pair.old.maps):
        assert tensor.grad is None
        assert not tensor.requires_grad


@pytest.mark.parametrize("layer", ["pooled", 1, 2])
def test_the_value_of_an_image_does_not_depend_on_the_batch_in_evaluation_mode(layer):
    pair = outputs_pair()
    alone = [l_ad(pair.subset(slice(i, i + 1)), layer=layer) for i in range(8)]
    assert_close(l_ad(pair, layer=layer), torch.stack(alone).mean(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["pooled", 1, 2])
def test_equal_models_have_no_attention_loss_in_evaluation_mode_and_some_in_training_mode(layer):
    assert l_ad(outputs_pair(equal=True), layer=layer).item() < 1e-12
    assert l_ad(outputs_pair(equal=True, training=True), layer=layer).item() > 1e-3


def test_the_class_is_the_strongest_old_one_of_the_named_model():
    pair = outputs_pair(2)
    new_choice, old_choice = pair.new.logits[:, :2].argmax(1), pair.old.logits[:, :2].argmax(1)
    assert not torch.equal(new_choice, old_choice)  # or the test shows nothing
    for target, choice in (("new", new_choice), ("old", old_choice)):
        ours, theirs = (pooled_attention(out, choice, 1e-6) for out in (pair.new, pair.old))
        assert_close(l_ad(pair, target=target), attention_distance(ours, theirs, "l1"))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_dead_maps_are_harmless(distance):
    # no position of either map is attended to: all weights are negative
    maps = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    dead = attention(maps, weights, 1e-6)
    assert dead.abs().max() == 0
    alive = attention(maps.detach(), -weights.detach(), 1e-6)
    loss = attention_distance(dead, alive, distance)
    for gradient in torch.autograd.grad(loss, [maps, weights]):
        assert gradient.abs().max() == 0
    assert attention_distance(dead, dead, distance).item() == 0


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**31), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_attention_has_length_one_or_less_and_does_not_see_the_scale_of_weights(channels, side, seed, scale):
    rng = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, channels, side, side, generator=rng, dtype=torch.float64)
    weights = torch.randn(3, channels, generator=rng, dtype=torch.float64)
    q = attention(maps, weights, 1e-9)
    lengths = q.norm(dim=1)
    assert (q >= 0).all()
    assert (lengths < 1 + 1e-9).all()
    assert_close(attention(maps, scale * weights, 1e-9), q, rtol=1e-4, atol=1e-6)
    distances = {name: float(attention_distance(q, q.flip(0), name)) for name in ("l1", "l2")}
    assert 0 <= distances["l1"] <= math.sqrt(2 * side * side) + 1e-9
    assert 0 <= distances["l2"] <= 2 + 1e-9


def test_weights_scale_the_terms():
    pair = outputs_pair()
    assert_close(l_ad(pair, weight=0.25), 0.25 * l_ad(pair))
    half = penalty_terms(Distillation(DistillationOptions(weight=0.5)), pair)["L_D"]
    assert_close(half, 0.5 * sigmoid_distillation(pair.new.logits[:, :2], pair.old.logits[:, :2]))


def test_an_attention_is_weak_beside_eps_by_its_mean_gradient_over_all_positions():
    maps, rows = torch.rand(3, 4, 2, 5, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    outputs = SimpleNamespace(pooled=maps, channel_weights=lambda classes: rows)
    q = (maps * (rows / 10)[:, :, None, None]).sum(1).flatten(1)
    assert_close(pooled_attention(outputs, torch.zeros(3), 0.5), q / (q.square().sum(1, keepdim=True) + 0.25).sqrt())


def test_an_attention_of_maps_in_bf16_is_computed_in_float32():
    maps, weights = torch.rand(3, 4, 2, 5).bfloat16(), torch.rand(3, 4).bfloat16()
    assert torch.equal(attention(maps, weights, 1e-6), attention(maps.float(), weights.float(), 1e-6))


def test_what_an_attention_needs_follows_from_its_layer():
    assert AttentionDistillation(AttentionOptions()).needs == {"old", "pooled"}
    assert AttentionDistillation(AttentionOptions(layer=1)).needs == {"old", "maps", "old_graph"}


class Shapes(torch.nn.Module):
    """As much of a model as is asked for the shapes of its maps, the last of which is pooled."""

    device = torch.device("cpu")

    def __init__(self, *shapes, image=(3, 4, 6)):
        super().__init__()
        self.shapes, self.image = shapes, image

    def backbone(self, images):
        maps = [torch.zeros(len(images), 1, *shape) for shape in self.shapes]
        return SimpleNamespace(maps=maps, pooled=maps[-1])


@pytest.mark.parametrize(
    ("shapes", "layer", "place", "advice"),
    [
        ([(4, 6), (3, 1), (1, 1)], "pooled", "the pooled map", "set layer = 2, whose map has 3"),
        ([(2, 1), (1, 1), (1, 1)], 3, "the map of stage 3", "set layer = 1, whose map has 2"),
        ([(1, 1), (2, 2)], 1, "the map of stage 1", "set layer = 2, whose map has 4"),
        ([(1, 1)], "pooled", "the pooled map", "choose another backbone"),
    ],
)  # fmt: skip
def test_a_map_of_one_position_is_refused_with_what_has_more(shapes, layer, place, advice):
    with pytest.raises(UserError) as error:
        check_positions(Shapes(*shapes), layer)
    said = f"layer: {place} has one position for images of 4x6; {advice}, or take larger images"
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("shapes", "layer"), [([(1, 1), (1, 2)], "pooled"), ([(2, 1), (1, 1)], 1), ([(1, 1), (2, 1), (1, 1)], 2)]
)
def test_two_positions_are_enough(shapes, layer):
    check_positions(Shapes(*shapes), layer)
    check_positions(Shapes((1, 1), image=None), layer)


def begun(layer, *epochs, stages=3):
    """L_AD at the beginning of a run on a model of one position, whose phases have so many epochs."""
    run = SimpleNamespace(model=Shapes(*[(1, 1)] * stages), remaining_steps=[2])
    run.model.stages, run.phases = stages, lambda step: [SimpleNamespace(epochs=count) for count in epochs]
    AttentionDistillation(AttentionOptions(layer=layer)).before_run(run)


def test_stages_are_counted_from_1_to_the_last():
    begun(1)
    begun(3)
    with pytest.raises(UserError, match=r"^layer: 4 wanted, but the backbone has 3 stages; choose one$"):
        begun(4)


def test_positions_matter_where_some_phase_trains():
    begun("pooled", 0, 0)
    for epochs in ((2, 0), (0, 2)):
        with pytest.raises(UserError, match="the pooled map has one position"):
            begun("pooled", *epochs)


def test_a_map_of_one_position_is_refused_with_a_stage_that_has_more(tmp_path):
    tables = {"penalties": [{"use": "L_AD"}], "data": {"size": 4}}
    wanted = "L_AD: layer: the pooled map has one position for images of 4x4; set layer = 2, whose map has 4, or take"
    with pytest.raises(UserError, match=wanted):
        tiny_run(tables, tmp_path)
    with pytest.raises(UserError, match=wanted):  # which `run --dry-run` shows
        planned_run(assemble(load_recipe(tiny_recipe(tables, tmp_path))), "cpu", None)
    (tmp_path / "two").mkdir()
    assert "L_AD" in tiny_run({**tables, "penalties": [{"use": "L_AD", "layer": 2}]}, tmp_path / "two").terms[2]


# one old class, of which a softmax says nothing


@pytest.mark.parametrize(
    ("penalty", "says"),
    [
        ({"use": "KD"}, False),
        ({"use": "L_D", "form": "softmax"}, False),
        ({"use": "wa"}, False),
        ({"use": "ewc"}, False),
        ({"use": "efc", "plain": 0.0}, False),
        ({"use": "efc"}, True),
        ({"use": "L_D"}, True),
        ({"use": "L_AD"}, True),
        ({"use": "mas"}, True),
        ({"use": "POD"}, True),
    ],
)
def test_a_term_that_says_nothing_of_one_old_class_is_refused_with_the_recipe(penalty, says, tmp_path):
    def assembled(first, **tables):
        scenario = {"scenario": {"first": first, "increment": 2}, "objective": {"use": "bce"}}
        return assemble(load_recipe(tiny_recipe({"penalties": [penalty]} | scenario | tables, tmp_path)))

    assert assembled(2)
    assert assembled(1, training={"epochs": 0})
    if says:
        assert assembled(1)
    else:
        with pytest.raises(UserError) as refused:
            assembled(1)
        words = f"penalty: {penalty['use']} over the old classes says nothing in step 2, which has 1 of them, and 2 are"
        assert words in str(refused.value)


def test_side_classifiers_of_one_class_are_refused_with_the_recipe(tmp_path):
    def assembled(increment, **tables):
        scenario = {"first": 2, "increment": increment, "classes": 2 + sum(increment)}
        tables |= {"scenario": scenario, "objective": {"use": "bce"}, "penalties": [{"use": "muc"}]}
        return assemble(load_recipe(tiny_recipe(tables, tmp_path)))

    words = "penalty: muc needs 2 new classes in every step but the last, and step 2 has 1; set scenario.increment high"
    for tables in ({}, {"training": {"epochs": 0}}):  # they are fitted to the features all the same
        with pytest.raises(UserError, match=words):
            assembled([1, 1], **tables)
    assert assembled([2])
    assert assembled([1]), "nothing comes after the last step"
