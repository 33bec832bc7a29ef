"""Objects and answers of strangers' methods: never a bug of lwmfw (exit 3), never silence."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.strangers import FOREIGN, KIND, Flat, Head, Stranger, numbered, told
from torch import nn

from lwmfw import DataSet, ImageFiles
from lwmfw.assembly.answers import METHODS
from lwmfw.components import KINDS


@pytest.mark.parametrize("kind", KIND)
def test_an_object_that_is_no_component_is_refused(kind, tmp_path):
    for value in [None, *FOREIGN]:
        assert told(kind, lambda options, value=value: value, tmp_path), f"{value!r} was accepted"


def tampered(**values):
    """A data set with other values."""
    return lambda: dataclasses.replace(Stranger().load(), **values)


def images(**values):
    return dataclasses.replace(Stranger().load().train, **values)


SLIM = images(pixels=torch.zeros(16, 3, 8, 6, dtype=torch.uint8))
EMPTY = images(pixels=torch.zeros(16, 3, 0, 0, dtype=torch.uint8))
LISTED = ImageFiles([Path("a")] * 16, torch.arange(16) % 4, 8, 8)


def read(**values):
    """A data set of files that are read in some way."""
    files = dataclasses.replace(ImageFiles(["a"] * 16, torch.arange(16) % 4, 8, 8), **values)
    return tampered(train=files, test=files)


SAID = {
    "twins": (tampered(class_names=["a", "b", "a", "d"]), "class_names with 'a' twice; name classes apart"),
    "mean": (tampered(mean=[123.7, 116.3, 103.5]), "mean = [123.7, 116.3, 103.5]; give 3 numbers from 0 to 1, one per"),
    "below": (tampered(mean=[0.5, -0.1, 0.5]), "mean = [0.5, -0.1, 0.5]; give 3 numbers from 0 to 1, one per channel"),
    "std": (tampered(std=[0.5, 0.0, 0.5]), "std = [0.5, 0.0, 0.5]; give 3 numbers above 0, one per channel"),
    "dark": (
        tampered(train=images(pixels=torch.ones(16, 3, 8, 8, dtype=torch.uint8))),
        "pixels of 0 and 1 alone, where",
    ),
    "bytes": (tampered(train=images(labels=(torch.arange(16) % 4).to(torch.uint8))), "labels are torch.uint8 of shape"),
    "values": (read(values=(9, 1)), "values are (9, 1); give the smaller one first"),
    "one": (read(values=(9,)), "values are (9,); give (lowest, highest), or () for what the files have"),
    "colour": (read(background="whiter"), "background is 'whiter'; name a colour, or give it as #rrggbb"),
    "limit": (read(max_pixels=0), "max_pixels are 0; give a whole number above 0"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_wrong_with_a_data_set_is_told_of_its_provider(case, tmp_path):
    load, words = SAID[case]
    message = told("data", answering("load", load), tmp_path)
    assert message.startswith("shop 1: stranger.load returned ")
    assert words in message


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
        tampered(class_names=[0, 1, 2, 3]),
        tampered(mean=0.5),
        tampered(mean=[0.5]),
        tampered(mean=["0.5"] * 3),
        tampered(std=[0.0] * 3),
        tampered(std=[float("nan")] * 3),
        tampered(padding="4"),
        tampered(padding=-1),
        tampered(padding=9),
        tampered(skipped=None),
        tampered(skipped=[Path("a")]),
        tampered(left_out=["a"]),
        tampered(left_out={"a": "2"}),
        tampered(train=SLIM, test=SLIM),
        tampered(test=SLIM),
        tampered(train=EMPTY, test=EMPTY),
        tampered(train=LISTED, test=LISTED),
        tampered(mean=torch.zeros(3, 50, 50)),
        tampered(class_names=["a", "b", "c", "d", "e"]),
        tampered(flip="yes"),
        tampered(brightness=1.5),
        tampered(brightness=True),
        tampered(brightness=float("nan")),
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
    "readout.scores": [
        lambda features: features.argmax(1),
        lambda features: features[0],
        lambda features: features[:0],
        lambda features: features.int(),
        lambda features: features.to("meta"),
        lambda features: torch.zeros(len(features), 99),
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


def test_every_method_of_the_table_is_asked_here():
    assert set(METHOD_ANSWERS) == set(METHODS)
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


def test_other_class_names_than_those_the_component_states_are_refused(tmp_path):
    stranger = type("Naming", (Stranger,), {"class_names": ["a", "b", "c", "e"]})
    assert "stranger.load returned other class_names than the component states" in told("data", stranger, tmp_path)


def test_a_data_set_with_more_to_it_is_a_data_set(tmp_path):
    class More(DataSet):
        def __init__(self, plain):
            self.__dict__.update(vars(plain), more=3)

    assert not told("data", answering("load", lambda: More(Stranger().load())), tmp_path)
