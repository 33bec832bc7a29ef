"""Strangers' answers: whatever a hook, a method of a kind or a network returns, it works or is told as the fault of the
component that returned it. Never a bug of lwmfw (exit 3), never silence."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from lwmfw import DataSet, Features, ImageFiles, Images, Selection, hookimpl
from lwmfw.assembly.answers import HOOKS, METHODS
from lwmfw.components import KINDS, Provider
from lwmfw.errors import LwmfwError
from lwmfw.hookspecs import RUN_HOOKS, SPECS
from lwmfw.testing import tiny_run

KIND = {kind.kind: kind for kind in KINDS}
FOREIGN = [0, 1.5, True, "text", b"bytes", [1], ["a"], (1, 2), {"a": 1}, {1}, object(), int, torch.zeros(2), print]
"""Answers that are right nowhere."""


class Stranger:
    """Enough of a component of any kind; a test gives it one wrong answer."""

    class_count = 4
    offers = frozenset({"features"})

    def __init__(self, options=None):
        pass

    def load(self):
        pixels = torch.arange(16 * 3 * 64, dtype=torch.int32).view(16, 3, 8, 8).mul(37).to(torch.uint8)
        images = Images(pixels, torch.arange(16) % 4)
        return DataSet(images, images, ["a", "b", "c", "d"], [0.5] * 3, [0.25] * 3)

    def build(self, count):
        return Flat() if self.record.kind == "backbone" else Head()

    def loss(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels)

    def encode(self, pixels):
        return [bytes(image.flatten().tolist()) for image in pixels]

    def decode(self, encoded, shape):
        return torch.tensor([list(each) for each in encoded], dtype=torch.uint8).view(len(encoded), *shape)

    def shared_bytes(self, shape):
        return 0

    @hookimpl
    def compute_penalty(self, new):
        return {"term": new.logits.mean()}

    @hookimpl
    def plan_phases(self):
        return None

    @hookimpl
    def allocate_memory(self, classes):
        return dict.fromkeys(classes, 2)

    @hookimpl
    def select_memory(self, candidates, quota):
        return Selection({c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()})


class Flat(nn.Module):
    """The least of a network."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return Features(images.mean((2, 3)) * self.scale, [], [], None)


class Flatten:
    """The backbone beside strangers of other kinds."""

    offers = frozenset({"features"})

    def __init__(self, options):
        pass

    def build(self, channels):
        return Flat()


class Head(nn.Module):
    """The least of a classifier."""

    def __init__(self):
        super().__init__()
        self.rows = nn.ParameterList()

    def grow(self, classes):
        self.rows.append(nn.Parameter(torch.ones(classes, 3)))

    def forward(self, features):
        return features @ torch.cat(list(self.rows)).T


def refiner(answer):
    """A refiner that gives an answer."""

    class Refining(Stranger):
        @hookimpl(wrapper=True)
        def select_memory(self, candidates, quota):
            selection = yield
            return answer(selection=selection, candidates=candidates, quota=quota)

    return Refining


def recipe_with(kind):
    """A recipe of small parts in which the component `stranger` is of a kind."""
    table = {"use": "stranger"}
    memory = {"budget": "2 per class", "select": {"use": "random"}}
    recipe = {
        "data": {"use": "synthetic", "classes": 4, "train_per_class": 4, "test_per_class": 2, "size": 8},
        "backbone": {"use": "flat"},
        "objective": {"use": "cross_entropy", "over": "seen"},
        "training": {"epochs": 1, "batch_size": 8, "precision": "fp32"},
        "memory": memory,
        "penalties": [{"use": "L_D"}],
        "phases": [{"use": "balanced", "epochs": 1}],
    }
    outer, _, inner = KIND[kind].table.partition(".")
    choice = [table] if KIND[kind].listed else table
    recipe[outer] = memory | {inner: choice} if inner else choice
    if kind == "objective":
        table["over"] = "seen"
    return recipe


def told(kind, stranger, folder):
    """What is said of a run in which a stranger takes part; empty: nothing was wrong."""
    record = KIND[kind]("stranger", stranger, KIND[kind].required_options, provider=Provider("shop", "1"))
    if isinstance(stranger, type):
        stranger.record = record
    number = len(list(folder.iterdir()))
    (folder / str(number)).mkdir()
    try:
        tiny_run(recipe_with(kind), folder / str(number), components=[record, KIND["backbone"]("flat", Flatten)])
    except LwmfwError as error:
        message, code = str(error), error.exit_code
    else:
        return ""
    assert code in (1, 2), message
    assert re.match(r"shop 1: \S", message), f"names another than the one to blame: {message}"
    assert "\n" not in message
    assert ";" in message, f"does not say what to do: {message}"
    return message


def with_hook(hook, answer):
    """A penalty, or what its kind requires, that gives an answer in a hook."""
    takes = [argument for argument in SPECS[hook] if argument not in ("rng", "old")]
    source = f"def {hook}(self, {', '.join(takes)}): return answer({', '.join(f'{a}={a}' for a in takes)})"
    scope = {"answer": answer}
    exec(source, scope)  # noqa: S102 - a hook names its arguments, and each has others
    return type("Answering", (Stranger,), {hook: hookimpl(scope[hook])})


ASKED = {"choose_data": "penalty", "plan_phases": "phase", "allocate_memory": "rate", "select_memory": "selector"}
"""Hooks whose answers are asked of a kind; of the others, of a penalty."""


def stretched(step, main, **values):
    return [dataclasses.replace(main, **{"name": "more", **values})]


WRONG = {
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
        lambda step, main: stretched(step, main, epochs=0),
        lambda step, main: stretched(step, main, lr=float("nan")),
        lambda step, main: stretched(step, main, schedule="linear"),
        lambda step, main: stretched(step, main, milestones=0.5),
        lambda step, main: stretched(step, main, optimizer=None),
        lambda step, main: stretched(step, main, name=5),
        lambda step, main: stretched(step, main) * 2,
        lambda step, main: stretched(step, main, balanced="yes"),
        lambda step, main: stretched(step, main, penalties=None),
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


def numbered(answers):
    return {"argvalues": answers, "ids": [f"{n}" for n in range(len(answers))]}


def constant(value):
    return lambda **_: value


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


@pytest.mark.parametrize("kind", KIND)
def test_an_object_that_is_no_component_is_refused(kind, tmp_path):
    for value in [None, *FOREIGN]:
        assert told(kind, lambda options, value=value: value, tmp_path), f"{value!r} was accepted"


def tampered(**values):
    """A data set with other values."""
    return lambda: dataclasses.replace(Stranger().load(), **values)


def images(**values):
    return dataclasses.replace(Stranger().load().train, **values)


METHOD_ANSWERS = {
    "data.load": [
        lambda: Stranger().load().train,
        lambda: (Stranger().load().train, Stranger().load().test),
        tampered(train=None),
        tampered(train=Stranger().load().train.pixels),
        tampered(test=ImageFiles(["a"] * 16, torch.arange(16) % 4, 8, 8)),
        tampered(train=images(pixels=Stranger().load().train.pixels.float())),
        tampered(train=images(pixels=Stranger().load().train.pixels[0])),
        tampered(train=images(pixels=Stranger().load().train.pixels.to("meta"))),
        tampered(train=images(labels=torch.arange(16) % 4 - 1)),
        tampered(train=images(labels=torch.arange(16))),
        tampered(train=images(labels=torch.arange(15) % 4)),
        tampered(train=images(labels=(torch.arange(16) % 4).float())),
        tampered(train=images(labels=[0] * 16)),
        tampered(train=images(pixels=torch.zeros(16, 1, 8, 8, dtype=torch.uint8))),
        tampered(class_names=4),
        tampered(class_names=[]),
        tampered(class_names=[0, 1, 2, 3]),
        tampered(mean=0.5),
        tampered(mean=[0.5]),
        tampered(mean=["0.5"] * 3),
        tampered(std=[0.0] * 3),
        tampered(std=[float("nan")] * 3),
        tampered(padding="4"),
        tampered(padding=-1),
        tampered(flip="yes"),
        tampered(train=ImageFiles("abcd", torch.arange(4), 8, 8), test=ImageFiles(["a"] * 4, torch.arange(4), 8, 8)),
        tampered(train=ImageFiles(["a"] * 4, torch.arange(4), 9, 8), test=ImageFiles(["a"] * 4, torch.arange(4), 9, 8)),
    ],
    "backbone.build": [lambda channels: Flat, lambda channels: Flat().forward],
    "classifier.build": [lambda features: nn.Linear(features, 4), lambda features: Head],
    "objective.loss": [
        lambda logits, labels: logits,
        lambda logits, labels: logits.mean().item(),
        lambda logits, labels: labels.sum(),
        lambda logits, labels: logits.mean()[None],
        lambda logits, labels: logits.mean().to("meta"),
        lambda logits, labels: {"loss": logits.mean()},
    ],
    "codec.encode": [
        lambda pixels: pixels,
        lambda pixels: b"one for all",
        lambda pixels: [image.tolist() for image in pixels],
        lambda pixels: ["text"] * len(pixels),
        lambda pixels: [bytearray(4)] * len(pixels),
        lambda pixels: [b""] * (len(pixels) + 1),
        lambda pixels: tuple([b""] * len(pixels)),
    ],
    "codec.decode": [
        lambda encoded, shape: torch.zeros(len(encoded), *shape),
        lambda encoded, shape: torch.zeros(shape, dtype=torch.uint8),
        lambda encoded, shape: torch.zeros(len(encoded) + 1, *shape, dtype=torch.uint8),
        lambda encoded, shape: [torch.zeros(shape, dtype=torch.uint8)] * len(encoded),
        lambda encoded, shape: torch.zeros(len(encoded), *shape, dtype=torch.uint8, device="meta"),
    ],
    "codec.shared_bytes": [lambda shape: -1, lambda shape: 2.0, lambda shape: "2", lambda shape: None],
    "state": [
        lambda: {1: 2},
        lambda: {"a": {1, 2}},
        lambda: {"a": [torch.zeros(1)]},
        lambda: {"a": float("nan")},
        lambda: {"a": torch.zeros(1, device="meta")},
    ],
}


def answering(method, answer):
    more = {"restore": lambda self, state: None} if method == "state" else {}
    return type("Answering", (Stranger,), {method: lambda self, *arguments: answer(*arguments), **more})


def test_every_method_and_every_question_of_the_tables_is_asked_here():
    assert set(METHOD_ANSWERS) == set(METHODS)
    assert set(WRONG) == set(HOOKS) - {"after_step"}
    required = {f"{kind.kind}.{method}" for kind in KINDS for method in kind.required_methods}
    assert required | {"state"} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_answer_anywhere_is_refused_of_every_method(method, tmp_path):
    kind, _, name = method.rpartition(".")
    right = {"codec.shared_bytes": [0], "state": [{"a": 1}]}.get(method, [])
    for value in [None, *FOREIGN]:
        if not any(type(value) is type(each) and value == each for each in right):
            message = told(kind or "penalty", answering(name, lambda *_, value=value: value), tmp_path)
            assert f"stranger.{name} returned" in message, f"{value!r}: {message or 'accepted'}"


@pytest.mark.parametrize(("method", "answer"), **numbered([(m, a) for m, some in METHOD_ANSWERS.items() for a in some]))
def test_a_wrong_answer_of_a_method_is_blamed_on_it(method, answer, tmp_path):
    kind, _, name = method.rpartition(".")
    assert f"shop 1: stranger.{name} " in told(kind or "penalty", answering(name, answer), tmp_path)


FORWARDS = [
    lambda f: None,
    lambda f: f.features,
    lambda f: tuple(f),
    lambda f: {"features": f.features},
    lambda f: f._replace(features=None),
    lambda f: f._replace(features=f.features[0]),
    lambda f: f._replace(features=f.features[:, :, None]),
    lambda f: f._replace(features=f.features.int()),
    lambda f: f._replace(features=f.features.to("meta")),
    lambda f: f._replace(features=f.features[:0]),
    lambda f: f._replace(maps=f.features),
    lambda f: f._replace(maps=[f.features]),
    lambda f: f._replace(raw_maps=None),
    lambda f: f._replace(raw_maps=[None]),
    lambda f: f._replace(pooled=f.features),
    lambda f: f._replace(pooled=[]),
]


def forwarding(network, forward):
    """A component whose network answers otherwise; None as the answer's maker: it takes no images at all."""

    def changed(self, given):
        return forward(network.forward(self, given))

    Odd = type("Odd", (network,), {"forward": changed if forward else lambda self: None})
    return type("Building", (Stranger,), {"build": lambda self, count: Odd()})


@pytest.mark.parametrize("forward", **numbered([None, *FORWARDS]))
def test_a_wrong_answer_of_a_network_is_blamed_on_its_backbone(forward, tmp_path):
    assert "shop 1: stranger" in told("backbone", forwarding(Flat, forward), tmp_path)


@pytest.mark.parametrize("forward", **numbered(FORWARDS[:2]))
def test_a_network_that_answers_otherwise_in_training_is_blamed_too(forward, tmp_path):
    class Changing(Flat):
        def forward(self, images):
            body = super().forward(images)
            return forward(body) if self.training else body

    stranger = type("Building", (Stranger,), {"build": lambda self, channels: Changing()})
    assert "shop 1: stranger: the backbone returned" in told("backbone", stranger, tmp_path)


LOGITS = [
    lambda logits: None,
    lambda logits: [logits],
    lambda logits: logits[0],
    lambda logits: logits[:, :1],
    lambda logits: logits.int(),
    lambda logits: logits.to("meta"),
    lambda logits: torch.cat([logits, logits], 1),
    lambda logits: logits[:0],
]


@pytest.mark.parametrize("forward", **numbered([None, *LOGITS]))
def test_a_wrong_answer_of_a_head_is_blamed_on_its_classifier(forward, tmp_path):
    assert "shop 1: stranger: the classifier " in told("classifier", forwarding(Head, forward), tmp_path)


def test_a_head_that_cannot_be_told_how_many_classes_come_is_blamed(tmp_path):
    class Mute(Head):
        def grow(self):
            pass

    stranger = type("Building", (Stranger,), {"build": lambda self, features: Mute()})
    assert "the classifier raised TypeError" in told("classifier", stranger, tmp_path)


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_a_network_that_cannot_be_copied_is_blamed(kind, tmp_path):
    class Single(Flat if kind == "backbone" else Head):
        def __init__(self):
            super().__init__()
            self.stream = (number for number in range(3))

    stranger = type("Building", (Stranger,), {"build": lambda self, count: Single()})
    assert "shop 1: stranger" in told(kind, stranger, tmp_path)


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_a_network_whose_state_is_more_than_tensors_is_blamed(kind, tmp_path):
    class Telling(Flat if kind == "backbone" else Head):
        def get_extra_state(self):
            return {"seen": 3}

    stranger = type("Building", (Stranger,), {"build": lambda self, count: Telling()})
    assert "in its state, which is no tensor" in told(kind, stranger, tmp_path)


@pytest.mark.parametrize("error", [SystemExit(0), LwmfwError("mine"), RuntimeError("a"), StopIteration()])
@pytest.mark.parametrize("hook", ["before_run", "compute_penalty", "after_step", "after_run"])
def test_what_a_stranger_raises_is_told_as_its_own(hook, error, tmp_path):
    def fail(**_):
        raise error

    assert "raised " in told("penalty", with_hook(hook, fail), tmp_path)
