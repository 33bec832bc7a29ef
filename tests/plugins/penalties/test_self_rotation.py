"""self-rotation: what is asked of four turns, in the first step alone."""

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch.testing import assert_close

import lwmfw
from lwmfw import Batch, Step
from lwmfw.assembly.calls import Position, Randomness
from lwmfw.errors import UserError
from lwmfw.model.growing import model_bytes, parameter_count
from lwmfw.record import checkpoint
from lwmfw.testing import outputs_pair, tiny_recipe, tiny_run
from lwmfw_plugins._extras import linear_head
from lwmfw_plugins.penalties.self_rotation import SelfRotation, SelfRotationOptions, turned, turned_labels

ROTATION = THREE_STEPS | {"penalties": [{"use": "self-rotation"}]}
FIRST = Step(1, range(2), range(2), 3)


def quarter_turn(image):
    """The columns of an image, from the last one on, as its rows."""
    size = image.shape[-1]
    found = torch.empty_like(image)
    for row in range(size):
        for column in range(size):
            found[:, row, column] = image[:, column, size - 1 - row]
    return found


def test_an_image_is_turned_by_each_angle():
    images = torch.randn(3, 2, 5, 5)
    found, once = turned(images), torch.stack([quarter_turn(image) for image in images])
    twice = torch.stack([quarter_turn(image) for image in once])
    assert torch.equal(found, torch.cat([once, twice, torch.stack([quarter_turn(image) for image in twice])]))
    assert torch.equal(torch.stack([quarter_turn(image) for image in found[6:]]), images)


def test_a_label_is_class_and_turn():
    labels = torch.tensor([1, 0, 2])
    expected = [4 * label + turn for turn in range(4) for label in labels.tolist()]
    assert turned_labels(labels).tolist() == expected
    assert sorted(turned_labels(torch.arange(5)).tolist()) == list(range(20))


def small(weight=1.0):
    """The penalty, and a model with its head in the first step: what both say of a batch."""
    pair = outputs_pair(equal=True)
    penalty, head = SelfRotation(SelfRotationOptions(weight=weight)), linear_head(6, 8, torch.Generator())
    pair.model.extras["rotation"] = head.double()
    labels = pair.batch.labels % 2
    return penalty, pair.model, Batch(pair.batch.images, labels, torch.zeros_like(labels, dtype=torch.bool)), pair.new


def test_the_term_is_the_cross_entropy_of_class_and_turn_over_all_four_turns():
    penalty, model, batch, new = small(weight=0.7)
    total, head = 0.0, model.extras["rotation"]
    for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
        for turn in range(4):
            logits = head(model(image[None]).features)[0]
            total = total - logits.log_softmax(0)[4 * label + turn]
            image = quarter_turn(image)
    found = penalty.compute_penalty(FIRST, batch, new, model, "rotation")["self-rotation"]
    assert_close(found, 0.7 * total / (4 * len(batch.labels)))
    reached = torch.autograd.grad(found, [*model.backbone.parameters(), *head.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in reached)


def test_the_head_is_a_function_of_its_generator_alone():
    state = torch.random.get_rng_state()
    ones, others = (linear_head(6, 12, torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1))
    assert torch.equal(ones["weight"], others["weight"])
    assert ones["weight"].shape == (12, 6)
    assert ones["weight"].abs().max() < 6**-0.5
    assert not torch.equal(ones["weight"], linear_head(6, 12, torch.Generator().manual_seed(2)).weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_term_is_there_in_the_first_step_and_not_later(tmp_path):
    run = tiny_run(ROTATION, tmp_path)
    assert [sorted(terms) for terms in run.terms.values()] == [["bce", "self-rotation"], ["bce"], ["bce"]]
    (tmp_path / "plain").mkdir()
    plain = tiny_run(THREE_STEPS, tmp_path / "plain").run.model.state_dict()
    assert not torch.equal(run.run.model.state_dict()["classifier.weight"], plain["classifier.weight"])


def test_the_head_learns_in_the_first_step_alone_and_is_not_counted(tmp_path):
    (tmp_path / "plain").mkdir()
    run, plain = tiny_run(ROTATION, tmp_path), tiny_run(THREE_STEPS, tmp_path / "plain")
    head = run.run.model.extras["self-rotation"]
    first = checkpoint.load(run.path / "checkpoints", step=1).model
    drawn = linear_head(16, 8, Randomness(1, Position()).of_component("self-rotation"))
    assert 0 < (head.weight - drawn.weight).abs().max() < 0.5
    assert torch.equal(first["extras.self-rotation.weight"], head.weight)
    assert not head.weight.requires_grad
    assert [(s.parameters, s.model_bytes) for s in run.results.steps] == [
        (s.parameters, s.model_bytes) for s in plain.results.steps
    ]
    assert parameter_count(head) == 8 * 16 + 8
    assert model_bytes(run.run.model) == model_bytes(plain.run.model)
    assert "extras.self-rotation.weight" not in lwmfw.open_run(run.path).model.state_dict()


def test_it_can_have_any_name(tmp_path):
    run = tiny_run(ROTATION | {"penalties": [{"use": "self-rotation", "as": "turns.of.4"}]}, tmp_path)
    assert list(run.run.model.extras) == ["turns_of_4"]


def test_bf16_trains(tmp_path):
    run = tiny_run(ROTATION | {"training": {"precision": "bf16"}}, tmp_path)
    assert run.results.complete


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = tiny_run(ROTATION, tmp_path / "whole"), interrupted(tmp_path, ROTATION, after=1)
    ours, theirs = whole.run.model.state_dict(), resumed.run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_first_step_can_be_taken_over_only_where_it_was_there(tmp_path):
    for name, recipe in (("with", ROTATION), ("plain", THREE_STEPS), ("whole", ROTATION), ("taken", {})):
        (tmp_path / name).mkdir()
        if recipe:
            tiny_run(recipe, tmp_path / name)
    later = ROTATION | {"penalties": [{"use": "self-rotation"}, {"use": "less-forget"}]}
    file = tiny_recipe(later, tmp_path / "taken")
    with pytest.raises(UserError, match=r"in another way \(penalties\.self-rotation differs\)"):
        lwmfw.run(file, out=tmp_path / "taken" / "run", device="cpu", from_run=tmp_path / "plain" / "run")
    taken = lwmfw.run(file, out=tmp_path / "taken" / "run", device="cpu", from_run=tmp_path / "with" / "run")
    (tmp_path / "full").mkdir()
    full = tiny_run(later, tmp_path / "full").results
    assert [s.confusion for s in taken.steps] == [s.confusion for s in full.steps]
