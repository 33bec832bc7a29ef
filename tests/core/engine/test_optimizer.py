"""What an update does: its learning rate under every schedule, and the weights after it, worked out by hand."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lwmfw import Backbone, Features, Penalty, hookimpl
from lwmfw.assembly.calls import Position
from lwmfw.engine.optimizer import build_optimizer, check_parameters
from lwmfw.errors import RunFailed, WrongAnswer
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.tables import StepSettings
from lwmfw.testing import tiny_run


class Pixels(nn.Module):
    """A backbone without weights: the means of an image's channels."""

    def forward(self, images):
        return Features(images.mean((2, 3)), [], [], None)


class PixelsBackbone:
    offers = frozenset({"features"})

    def __init__(self, options):
        pass

    def build(self, channels):
        return Pixels()


def trained(tables, folder, *components):
    """A run whose only weights are those of its classifier; two updates an epoch in both steps."""
    data = {"use": "synthetic", "classes": 4, "train_per_class": 12, "test_per_class": 1, "size": 4}
    small = {"data": data, "backbone": {"use": "pixels"}}
    return tiny_run(small | tables, folder, components=[Backbone("pixels", PixelsBackbone), *components])


# learning rates


def rates(tables, folder):
    """The learning rate of every update of a run, as the optimiser has it when it is to step."""
    found = []
    watch = register_optimizer_step_pre_hook(lambda optimizer, *_: found.append(optimizer.param_groups[0]["lr"]))
    try:
        trained(tables, folder)
    finally:
        watch.remove()
    return pytest.approx(found)


def half_a_wave(rate, updates):
    return [rate * (1 + math.cos(math.pi * done / updates)) / 2 for done in range(updates)]


EIGHT = {
    "constant": [0.4] * 8,
    "cosine": half_a_wave(0.4, 8),
    "steps": [0.4] * 4 + [0.04] * 2 + [0.004] * 2,
}


@pytest.mark.parametrize("schedule", EIGHT)
def test_the_rate_falls_with_the_updates_of_a_step_and_begins_anew_in_the_next(schedule, tmp_path):
    training = {"epochs": 4, "batch_size": 16, "lr": 0.4, "schedule": schedule}
    assert [*EIGHT[schedule]] * 2 == rates({"training": training}, tmp_path)


def test_milestones_are_shares_of_a_phase_and_the_nearest_update_is_meant(tmp_path):
    steps = {"schedule": "steps", "milestones": [0.3, 0.7, 0.9], "gamma": 0.5}  # of 8: 2.4, 5.6, 7.2
    training = {"epochs": 4, "batch_size": 16, "lr": 0.8, **steps}
    assert [*[0.8] * 2, *[0.4] * 4, 0.2, 0.1] * 2 == rates({"training": training}, tmp_path)


def test_the_first_step_has_the_rates_of_its_own_settings(tmp_path):
    first = {"epochs": 3, "batch_size": 8, "lr": 0.2, "schedule": "steps", "milestones": [1 / 3], "gamma": 0.25}
    training = {"epochs": 2, "batch_size": 16, "lr": 0.1, "schedule": "cosine", "first": first}
    assert [0.2] * 3 + [0.05] * 6 + half_a_wave(0.1, 4) == rates({"training": training}, tmp_path)


@pytest.mark.parametrize(("replay", "batches"), [(0.0, 3), (0.25, 2)])
def test_exemplars_and_a_balanced_phase_count_with_the_batches_they_bring(replay, batches, tmp_path):
    tables = {
        "objective": {"over": "seen"},
        "memory": {"budget": "20 exemplars", "select": {"use": "random"}, "replay": replay},
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
        "phases": [{"use": "balanced", "epochs": 3, "lr": 0.05, "schedule": "cosine"}],
    }
    first, second, balanced = half_a_wave(0.1, 2 * 2), half_a_wave(0.1, 2 * batches), half_a_wave(0.05, 3 * 2)
    assert first + second + balanced == rates(tables, tmp_path)


# updates by hand


class Recording:
    """The weights before and after every update, and the batches between them, in float64."""

    phases = ()

    def __init__(self, options):
        Recording.phases = []

    @hookimpl
    def compute_penalty(self):
        return None

    @hookimpl
    def group_parameters(self, model):
        Recording.phases.append(([weights(model)], []))

    @hookimpl
    def after_update(self, batch, model):
        known, batches = Recording.phases[-1]
        known.append(weights(model))
        batches.append((batch.images.mean((2, 3)).double(), batch.labels))


def weights(model):
    """Rows and bias of the classifier side by side, (N, D + 1)."""
    return torch.cat([model.classifier.weight, model.classifier.bias[:, None]], 1).detach().double()


def gradient(rows, old_rows, features, labels, loss, l_d):
    """Of `loss` times binary cross-entropy over the new classes and `l_d` times distillation of the old ones."""
    total = torch.zeros_like(rows)
    for image, label in zip(features, labels.tolist(), strict=True):
        seen = [*image.tolist(), 1.0]
        for c, row in enumerate(rows.tolist()):
            target = torch.tensor(seen, dtype=torch.float64) @ old_rows[c] if c < len(old_rows) else None
            said = 1 / (1 + math.exp(-sum(w * x for w, x in zip(row, seen, strict=True))))
            wanted = float(label == c) if target is None else 1 / (1 + math.exp(-float(target)))
            weight = loss if target is None else l_d
            total[c] += weight * (said - wanted) * torch.tensor(seen, dtype=torch.float64) / len(labels)
    return total


class Sgd:
    """Of Polyak's momentum: the velocity takes in gradient and decay, the weights follow it."""

    velocity = 0.0

    def __call__(self, w, g, rate):
        self.velocity = 0.8 * self.velocity + g + 0.05 * w
        return w - rate * self.velocity


class Adam:
    """Kingma and Ba, ICLR 2015, algorithm 1; the decay is part of the gradient."""

    apart = 0.0
    done, mean, square = 0, 0.0, 0.0

    def __call__(self, w, g, rate):
        g = g + (0.05 - self.apart) * w
        self.done += 1
        self.mean, self.square = 0.9 * self.mean + 0.1 * g, 0.999 * self.square + 0.001 * g**2
        step = (self.mean / (1 - 0.9**self.done)) / ((self.square / (1 - 0.999**self.done)).sqrt() + 1e-8)
        return w - rate * self.apart * w - rate * step


class AdamW(Adam):
    """Loshchilov and Hutter, ICLR 2019, algorithm 2: the decay acts beside it."""

    apart = 0.05


@pytest.mark.parametrize(("optimizer", "rule"), [("sgd", Sgd), ("adam", Adam), ("adamw", AdamW)])
def test_updates_are_those_worked_out_by_hand(optimizer, rule, tmp_path):
    tables = {
        "objective": {"use": "bce", "weight": 0.7},
        "penalties": [{"use": "L_D", "weight": 0.3}, {"use": "recording"}],
        "training": {
            "epochs": 2, "batch_size": 12, "lr": 0.5, "optimizer": optimizer, "momentum": 0.8, "weight_decay": 0.05,
        },
    }  # fmt: skip
    trained(tables, tmp_path, Penalty("recording", Recording))
    old = torch.zeros(0, 4, dtype=torch.float64)
    for known, batches in Recording.phases:
        update, w = rule(), known[0]
        for (features, labels), rate, after in zip(batches, half_a_wave(0.5, 4), known[1:], strict=True):
            w = update(w, gradient(w, old, features, labels, 0.7, 0.3), rate)
            torch.testing.assert_close(after, w, rtol=1e-4, atol=1e-5)
        old = known[-1]
    assert len(Recording.phases) == 2


def apart(parameter, **settings):
    """A penalty that wants a parameter of the classifier apart."""

    class Apart:
        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self):
            return None

        @hookimpl
        def group_parameters(self, model):
            return [{"params": [getattr(model.classifier, parameter)], **settings}]

    return Penalty(parameter, Apart)


def test_groups_have_their_own_settings_and_their_rates_fall_together(tmp_path):
    def note(optimizer, *_):
        groups = optimizer.param_groups
        found.append([(len(g["params"]), round(g["lr"], 6), g["momentum"], g["weight_decay"]) for g in groups])

    found, watch = [], register_optimizer_step_pre_hook(note)
    tables = {
        "penalties": [{"use": "weight"}, {"use": "bias"}],
        "training": {"epochs": 1, "batch_size": 12, "lr": 0.1, "momentum": 0.8},
    }
    try:
        run = trained(tables, tmp_path, apart("weight", momentum=0.5), apart("bias", lr=0.02, weight_decay=0.0))
    finally:
        watch.remove()
    first = [(0, 0.1, 0.8, 5e-4), (1, 0.1, 0.5, 5e-4), (1, 0.02, 0.8, 0.0)]
    second = [(0, 0.05, 0.8, 5e-4), (1, 0.05, 0.5, 5e-4), (1, 0.01, 0.8, 0.0)]
    assert found == [first, second] * 2
    logged = [json.loads(line)["lr"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [0.1, 0.1], "the rate of what nobody wants apart, as the epoch began"


# what cannot be trained


def part(name, kind, hook):
    return SimpleNamespace(name=name, provider="shop 1", record=SimpleNamespace(kind=kind), hooks={hook})


@pytest.mark.parametrize(
    ("parts", "who"),
    [
        ([], "the network"),
        ([part("late", "penalty", "after_step")], "the network"),
        ([part("seen", "observer", "before_step"), part("nme", "readout", "before_step")], "the network"),
        (
            [part("freeze", "penalty", "before_step"), part("own", "phase", "group_parameters")],
            "freeze of shop 1 and own of shop 1",
        ),
    ],
)
def test_who_may_have_left_nothing_to_train_is_named(parts, who):
    assembly = SimpleNamespace(components={each.name: each for each in parts}, position=Position(step=2))
    with pytest.raises(RunFailed) as error:
        build_optimizer(Phase("main", **StepSettings().model_dump()), nn.Identity(), [], assembly)
    assert str(error.value) == (
        f"phase 'main' has nothing to train: {who} left no parameter that requires a gradient; "
        "the run stopped in step 2; leave some, or set training.epochs = 0"
    )


def test_the_main_phase_is_the_one_of_that_name():
    phase = Phase("main", **StepSettings().model_dump())
    assert (phase.main, replace(phase, name="balanced").main) == (True, False)


def test_parameters_that_come_inside_a_phase_are_missed():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    check_parameters(optimizer, model)
    model[0].weight = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    check_parameters(optimizer, model)
    model[1].bias = nn.Parameter(torch.zeros(2))
    with pytest.raises(WrongAnswer) as error:
        check_parameters(optimizer, model)
    assert (error.value.kind, str(error.value)) == (
        "backbone",
        "the backbone was given new parameters inside a phase, which would not learn; change it after the last epoch",
    )
