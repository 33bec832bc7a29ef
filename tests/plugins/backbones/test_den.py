"""den: when it grows and splits, what a step may change of earlier ones, and that runs go on to the same bits."""

import copy
from itertools import pairwise

import pytest
import torch
from helpers.runs import THREE_STEPS, interrupted
from torch.optim import SGD
from torch.testing import assert_close

from lwmfw import Observer, hookimpl, open_run
from lwmfw.errors import UserError
from lwmfw.model.growing import frozen_copy
from lwmfw.testing import check, tiny_run
from lwmfw_plugins.backbones.den import Den, DenOptions, newest_head, register_components

NEVER = 1e6
FIXED = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def recipe(**options):
    return THREE_STEPS | {
        "backbone": {"use": "den", "width": 3, "expand": 2, **options},
        "classifier": {"use": "step-heads"},
        "objective": {"use": "cross_entropy", "over": "new"},
        "training": {"weight_decay": 0.01},
    }


def watched(**options):
    """Three steps, and the model after each of them."""
    models = []

    class Watch:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, model):
            models.append(copy.deepcopy(model).eval())

    tables = recipe(**options) | {"observers": [{"use": "watch"}]}
    done = tiny_run(tables, components=[Observer("watch", Watch)])
    return [step.extra["den"] for step in done.results.steps], models, done


@torch.no_grad()
def features(model):
    return model(FIXED).features


@torch.no_grad()
def logits(model):
    return model(FIXED).logits


# growth


def test_it_never_grows_below_its_threshold():
    told, models, done = watched(threshold=NEVER, drift=NEVER)
    assert all(model.backbone.widths == [3, 6, 12] for model in models)
    assert [step["expanded"] for step in told[1:]] == [False, False]
    first, *later = (step.parameters for step in done.results.steps)
    assert later == [first + 26, first + 52]  # a head of two classes over twelve features


def test_it_grows_in_every_step_whose_loss_is_above_its_threshold():
    told, models, _ = watched(threshold=0.0, drift=NEVER, group_lasso=0.0)
    assert [model.backbone.widths for model in models] == [[3, 6, 12], [5, 8, 14], [7, 10, 16]]
    assert [step["units"] for step in told] == [model.backbone.widths for model in models]
    assert [step.get("added") for step in told] == [None, [2, 2, 2], [2, 2, 2]]
    assert [head.weight.shape[1] for head in models[-1].classifier.heads] == [12, 14, 16]


def test_the_loss_it_decides_by_is_that_of_the_last_epoch_of_retraining():
    told, _, done = watched(epochs=2)
    rows = [line for line in (done.path / "metrics.jsonl").read_text().splitlines() if "den.retrain" in line]
    assert len(rows) == 4
    assert f'"cross_entropy": {told[1]["loss"]!r}' in rows[1]
    assert f'"cross_entropy": {told[2]["loss"]!r}' in rows[3]


def test_new_units_that_the_group_lasso_leaves_nothing_of_are_removed():
    told, models, _ = watched(threshold=0.0, drift=NEVER, group_lasso=10.0)
    assert [step["expanded"] for step in told[1:]] == [True, True]
    assert [step["added"] for step in told[1:]] == [[0, 0, 0], [0, 0, 0]]
    assert models[-1].backbone.widths == [3, 6, 12]


# what a step may change


def test_where_every_unit_that_moves_is_split_nothing_is_forgotten():
    told, models, _ = watched(threshold=0.0, drift=0.0, group_lasso=0.0)
    assert any(told[1]["split"])
    for before, after in pairwise(models):
        seen = features(before).shape[1]
        assert torch.equal(features(after)[:, :seen], features(before))
        # a product with the first of more columns can round otherwise
        assert_close(logits(after)[:, : before.classes], logits(before))


def test_retraining_in_place_changes_what_earlier_heads_say_unless_it_is_held():
    def change(hold):
        _, models, _ = watched(threshold=NEVER, drift=NEVER, hold=hold)
        return float((logits(models[1])[:, :2] - logits(models[0])).abs().max())

    assert 0 < change(5.0) < change(0.0)


def test_a_step_whose_head_reads_nothing_changes_nothing():
    # l1 leaves nothing of the head's weights, so no unit is reached
    told, models, _ = watched(threshold=NEVER, drift=0.0, l1=1.0)
    assert told[1]["selected"] == told[1]["split"] == [0, 0, 0]
    assert torch.equal(logits(models[-1])[:, :2], logits(models[0]))


def test_retraining_leaves_what_the_head_is_not_reached_from_as_it_is():
    run = tiny_run(recipe(threshold=NEVER, drift=NEVER)).run
    model, step, den = run.model, run.steps[-1], Den(DenOptions(hold=0.0))
    head = newest_head(model)
    with torch.no_grad():
        model.backbone.steps[0].weights[2][0, 1:] = 0  # the first unit of the last layer reads the first below it alone
        model.backbone.steps[0].weights[1][0, 1:] = 0  # and so on
        head.weight[:, 1:] = 0
    before = copy.deepcopy(model)
    den.before_step(model)
    phase = den.plan_phases(step, run.phases(step)[0], "den")[0]
    den.group_parameters(step, phase, model, None, "den")
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(FIXED).logits[:, -2:].square().sum().backward()
        optimizer.step()
        den.after_update()
    for layer, layer_before in zip(model.backbone.layers(), before.backbone.layers(), strict=True):
        (weight, bias), (weight_before, bias_before) = layer[0], layer_before[0]
        assert torch.equal(weight[1:], weight_before[1:])
        assert torch.equal(bias[1:], bias_before[1:])
        assert not torch.equal(bias[:1], bias_before[:1])
        assert not torch.equal(weight[:1], weight_before[:1])
        assert torch.equal(weight == 0, weight_before == 0)
    assert not head.weight[:, 1:].any()
    assert not torch.equal(head.weight, newest_head(before).weight)


def test_an_expansion_changes_nothing_of_what_was_there_while_new_units_alone_learn():
    run = tiny_run(recipe(threshold=NEVER, drift=NEVER)).run
    model, step, den = run.model, run.steps[-1], Den(DenOptions(threshold=0.0))
    before = copy.deepcopy(model).eval()
    den.before_step(model)
    den.loss = 1.0
    phase = den.plan_phases(step, run.phases(step)[0], "den")[1]
    den.group_parameters(step, phase, model, torch.Generator().manual_seed(0), "den")
    assert model.backbone.widths == [13, 16, 22]
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(FIXED).logits[:, -2:].square().sum().backward()
        optimizer.step()
        den.after_update()
    assert torch.equal(features(model)[:, :12], features(before))
    assert_close(logits(model)[:, :4], logits(before)[:, :4])
    head, head_before = newest_head(model), newest_head(before)
    assert torch.equal(head.weight[:, :12], head_before.weight)
    assert torch.equal(head.bias, head_before.bias)
    assert all(p.grad is not None and p.grad.any() for p in [*model.backbone.newest.parameters(), head.weight])


# runs


SPLITTING = {"threshold": 0.0, "drift": 0.02, "group_lasso": 0.5}


def test_a_run_that_is_interrupted_after_any_step_goes_on_to_the_same_bits(tmp_path):
    runs = []
    for after in (0, 1, 2):
        folder = tmp_path / f"{after}"
        folder.mkdir()
        whole = recipe(**SPLITTING)
        runs.append(interrupted(folder, whole, after) if after else tiny_run(whole, folder))
    told, *again = ([step.extra["den"] for step in done.results.steps] for done in runs)
    state, *others = (done.run.model.state_dict() for done in runs)
    assert again == [told, told]
    assert any(told[2]["split"])
    for other in others:
        assert state.keys() == other.keys()
        assert all(torch.equal(state[name], other[name]) for name in state)


def test_an_opened_run_and_copies_compute_the_same(tmp_path):
    done = tiny_run(recipe(**SPLITTING), tmp_path)
    model, opened = done.run.model.eval(), open_run(done.path).model.eval()
    assert opened.backbone.widths == model.backbone.widths != [3, 6, 12]
    assert torch.equal(logits(opened), logits(model))
    assert torch.equal(logits(frozen_copy(model)), logits(model))


def test_it_wants_a_head_for_every_step():
    wanted = "den needs 'heads', but the classifier linear offers resize, rows; choose another classifier"
    with pytest.raises(UserError, match=wanted):
        tiny_run(recipe() | {"classifier": {"use": "linear"}})


@pytest.mark.parametrize("given", [{"channels": 1, "size": 28}, {"channels": 3, "size": 5}])
def test_it_keeps_the_contract_of_a_backbone(given):
    (record,) = register_components()
    check(record, given | {"recipe": {"classifier": {"use": "step-heads"}}}, layers=4, width=2)
