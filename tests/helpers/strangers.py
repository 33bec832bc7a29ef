"""Strangers: components of any kind that give one wrong answer, and what is said of a run in which they take part."""

import re

import torch
from torch import nn

from lwmfw import DataSet, Features, Images, Selection, hookimpl
from lwmfw.components import KINDS, Provider
from lwmfw.errors import LwmfwError
from lwmfw.hookspecs import SPECS
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

    @hookimpl
    def after_training(self, step):
        self.seen = len(step.seen_classes)

    def scores(self, features):
        return features.mean(1, keepdim=True).expand(-1, self.seen)

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
    try:
        told_plainly(kind, stranger, folder)
    except LwmfwError as error:
        message, code = str(error), error.exit_code
    else:
        return ""
    assert code in (1, 2), message
    assert re.match(r"shop 1: \S", message), f"names another than the one to blame: {message}"
    assert "\n" not in message
    assert ";" in message, f"does not say what to do: {message}"
    return message


def told_plainly(kind, stranger, folder):
    """The run in which a stranger takes part."""
    record = KIND[kind]("stranger", stranger, KIND[kind].required_options, provider=Provider("shop", "1"))
    if isinstance(stranger, type):
        stranger.record = record
    number = len(list(folder.iterdir()))
    (folder / str(number)).mkdir()
    return tiny_run(recipe_with(kind), folder / str(number), components=[record, KIND["backbone"]("flat", Flatten)])


def with_hook(hook, answer):
    """A penalty, or what its kind requires, that gives an answer in a hook."""
    takes = [argument for argument in SPECS[hook] if argument not in ("rng", "old")]
    source = f"def {hook}(self, {', '.join(takes)}): return answer({', '.join(f'{a}={a}' for a in takes)})"
    scope = {"answer": answer}
    exec(source, scope)  # noqa: S102 - a hook names its arguments, and each has others
    return type("Answering", (Stranger,), {hook: hookimpl(scope[hook])})


def numbered(answers):
    return {"argvalues": answers, "ids": [f"{n}" for n in range(len(answers))]}
