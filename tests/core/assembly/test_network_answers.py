"""Answers of strangers' networks: told as the fault of backbone or classifier; no bug of lwmfw (exit 3), no silence."""

import pytest
import torch
from helpers.strangers import Flat, Head, Stranger, numbered, told

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
