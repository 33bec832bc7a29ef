"""Answers of strangers' hooks: whatever one returns works, or is told as the fault of the component that returned it.
Never a bug of lwmfw (exit 3), never silence."""

import dataclasses

import pytest
import torch
from helpers.strangers import FOREIGN, Stranger, numbered, told, with_hook
from torch import nn

from lwmfw import ImageFiles, Images, Selection, hookimpl
from lwmfw.assembly.answers import HOOKS
from lwmfw.errors import LwmfwError
from lwmfw.hookspecs import RUN_HOOKS


def refiner(answer):
    """A refiner that gives an answer."""

    class Refining(Stranger):
        @hookimpl(wrapper=True)
        def select_memory(self, candidates, quota):
            selection = yield
            return answer(selection=selection, candidates=candidates, quota=quota)

    return Refining


ASKED = {"choose_data": "penalty", "plan_phases": "phase", "allocate_memory": "rate", "select_memory": "selector"}
"""Hooks whose answers are asked of a kind; of the others, of a penalty."""


def stretched(step, main, **values):
    return [dataclasses.replace(main, **{"name": "more", **values})]


WRONG = {
    "grow_model": [lambda model, **_: model.backbone.state_dict(), lambda step, **_: step],
    "choose_data": [
        lambda data, **_: data.labels,
        lambda data, **_: Images(data.pixels.float(), data.labels),
        lambda data, **_: Images(data.pixels, data.labels.int()),
        lambda data, **_: Images(data.pixels[:1], data.labels),
        lambda data, **_: Images(data.pixels.to("meta"), data.labels),
        lambda data, **_: Images(data.pixels, data.labels + 2),
        lambda data, **_: data.select(torch.arange(len(data)).flip(0)),
        lambda data, **_: ImageFiles([""] * len(data), data.labels, 8, 8),
    ],
    "plan_phases": [
        lambda main, **_: main,
        lambda main, **_: [main, None],
        lambda main, **_: [vars(main)],
        lambda step, main: stretched(step, main, epochs="many"),
        lambda step, main: stretched(step, main, epochs=-1),
        lambda step, main: stretched(step, main, lr=float("nan")),
        lambda step, main: stretched(step, main, schedule="linear"),
        lambda step, main: stretched(step, main, milestones=0.5),
        lambda step, main: stretched(step, main, optimizer=None),
        lambda step, main: stretched(step, main, name=5),
        lambda step, main: stretched(step, main) * 2,
        lambda step, main: stretched(step, main, balanced="yes"),
        lambda step, main: stretched(step, main, penalties=None),
        lambda step, main: stretched(step, main, optional=1),
        lambda step, main: stretched(step, main, temperature=0.0),
        lambda step, main: stretched(step, main, temperature=float("nan")),
        lambda step, main: stretched(step, main, temperature="hot"),
    ],
    "group_parameters": [
        lambda model, **_: list(model.parameters()),
        lambda model, **_: [{"lr": 0.1}],
        lambda model, **_: [{"params": model.parameters()}],
        lambda model, **_: [{"params": list(model.parameters()), "rate": 0.1}],
        lambda model, **_: [{"params": list(model.parameters()), "lr": "0.1"}],
        lambda model, **_: [{"params": list(model.parameters()), "lr": -1.0}],
        lambda model, **_: [{"params": list(model.parameters()), "lr": float("inf")}],
        lambda model, **_: [{"params": ["weight"]}],
        lambda model, **_: [{"params": [nn.Parameter(torch.zeros(1))]}],
        lambda model, **_: [{"params": list(model.parameters()) * 2}],
    ],
    "compute_penalty": [
        lambda new, **_: new.logits.mean(),
        lambda new, **_: {"term": new.logits},
        lambda new, **_: {"term": new.logits.mean()[None]},
        lambda new, **_: {"term": new.logits.mean().item()},
        lambda new, **_: {"term": new.logits.argmax()},
        lambda new, **_: {"term": new.logits.mean().to("meta")},
        lambda new, **_: {1: new.logits.mean()},
        lambda new, **_: {"term": None},
    ],
    "allocate_memory": [
        lambda **_: None,
        lambda classes, **_: list(classes),
        lambda classes, **_: dict.fromkeys(map(str, classes), 2),
        lambda classes, **_: dict.fromkeys(classes, 2.0),
        lambda classes, **_: dict.fromkeys(classes, "2"),
        lambda classes, **_: dict.fromkeys(classes, None),
        lambda classes, **_: dict.fromkeys(classes, torch.tensor(2)),
        lambda classes, **_: dict.fromkeys(classes, -1),
        lambda classes, **_: {0: 2},
        lambda classes, **_: {**dict.fromkeys(classes, 2), 99: 2},
    ],
    "select_memory": [
        lambda **_: None,
        lambda quota, **_: {c: torch.arange(n) for c, n in quota.items()},
        lambda quota, **_: Selection({c: list(range(n)) for c, n in quota.items()}),
        lambda quota, **_: Selection([torch.arange(n) for n in quota.values()]),
        lambda quota, **_: Selection({c: torch.arange(n).float() for c, n in quota.items()}),
        lambda quota, **_: Selection({c: torch.arange(n)[None] for c, n in quota.items()}),
        lambda quota, **_: Selection({c: torch.arange(n, device="meta") for c, n in quota.items()}),
        lambda quota, **_: Selection({c: torch.arange(n) + 1000 for c, n in quota.items()}),
        lambda quota, **_: Selection(dict.fromkeys(quota, torch.zeros(2, dtype=torch.int64))),
        lambda quota, **_: Selection({}),
        lambda quota, **_: Selection(dict.fromkeys(quota, None)),
    ],
}


def constant(value):
    return lambda **_: value


def test_every_question_of_the_table_is_asked_here():
    assert set(WRONG) == set(HOOKS) - {"after_step"}


@pytest.mark.parametrize("hook", RUN_HOOKS)
def test_what_is_no_answer_anywhere_is_refused_by_every_hook(hook, tmp_path):
    for value in FOREIGN:
        message = told(ASKED.get(hook, "penalty"), with_hook(hook, constant(value)), tmp_path)
        assert f"stranger.{hook} returned" in message, f"{value!r}: {message or 'accepted'}"


@pytest.mark.parametrize("hook", [hook for hook in RUN_HOOKS if hook not in ("allocate_memory", "select_memory")])
def test_none_is_an_answer_where_the_manual_says_so(hook, tmp_path):
    assert told(ASKED.get(hook, "penalty"), with_hook(hook, constant(None)), tmp_path) == ""


@pytest.mark.parametrize(("hook", "answer"), **numbered([(h, a) for h, answers in WRONG.items() for a in answers]))
def test_a_wrong_answer_of_a_hook_is_blamed_on_it(hook, answer, tmp_path):
    message = told(ASKED.get(hook, "penalty"), with_hook(hook, answer), tmp_path)
    assert f"shop 1: stranger.{hook} " in message
    assert "the run stopped" in message


@pytest.mark.parametrize("answer", **numbered(WRONG["select_memory"]))
def test_a_wrong_answer_of_a_refiner_is_not_the_selectors(answer, tmp_path):
    assert "shop 1: stranger.select_memory " in told("refiner", refiner(answer), tmp_path)


PIXELS = [
    lambda s: dict.fromkeys(s, torch.zeros(2, 3, 8, 8)),
    lambda s: dict.fromkeys(s, torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
    lambda s: dict.fromkeys(s, torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta")),
    lambda s: {label: [0] for label in s},
    lambda s: {99: torch.zeros(2, 3, 8, 8, dtype=torch.uint8)},
    lambda s: None,
]


@pytest.mark.parametrize("pixels", **numbered(PIXELS))
def test_pixels_that_cannot_be_stored_are_the_refiners(pixels, tmp_path):
    def answer(selection, **_):
        return Selection(selection.indices, pixels(selection.indices))

    assert "shop 1: stranger.select_memory " in told("refiner", refiner(answer), tmp_path)


@pytest.mark.parametrize("error", [SystemExit(0), LwmfwError("mine"), RuntimeError("a"), StopIteration()])
@pytest.mark.parametrize("hook", ["before_run", "compute_penalty", "after_step", "after_run"])
def test_what_a_stranger_raises_is_told_as_its_own(hook, error, tmp_path):
    def fail(**_):
        raise error

    assert "raised " in told("penalty", with_hook(hook, fail), tmp_path)
