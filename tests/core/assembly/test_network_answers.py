"""Answers of strangers' networks: told as the fault of backbone or classifier; no bug of lwmfw (exit 3), no silence."""

import pytest
import torch
from helpers.strangers import Flat, Head, Stranger, numbered, told, told_plainly, with_hook
from torch import nn

from lwmfw import UserError
from lwmfw.errors import Interrupted, RunFailed

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


def in_training(network, forward):
    """A component whose network answers otherwise in training alone."""

    def changed(self, given):
        answer = network.forward(self, given)
        return forward(answer) if self.training else answer

    Odd = type("Odd", (network,), {"forward": changed})
    return type("Building", (Stranger,), {"build": lambda self, count: Odd()})


def wide(f):
    return f._replace(features=torch.cat([f.features] * 2, 1))


@pytest.mark.parametrize(
    "forward",
    **numbered(
        [
            wide,
            lambda f: f._replace(maps=[torch.zeros(len(f.features), 3, 1, 1)]),
            lambda f: f._replace(raw_maps=[torch.zeros(len(f.features), 3, 1, 1)]),
            lambda f: f._replace(pooled=f.features[:, :, None, None]),
        ]
    ),
)
def test_a_backbone_keeps_to_the_form_of_its_first_answer(forward, tmp_path):
    message = told("backbone", in_training(Flat, forward), tmp_path)
    assert "where it began with features of 3, 0 maps, 0 raw_maps and no pooled map; keep to one form" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_features_and_logits_are_of_the_precision_of_the_images(dtype, tmp_path):
    odd = forwarding(Flat, lambda f: f._replace(features=f.features.to(dtype)))
    assert "return torch.float32 of shape (B, D)" in told("backbone", odd, tmp_path)
    odd = forwarding(Head, lambda logits: logits.to(dtype))
    assert "return logits, torch.float32 of shape" in told("classifier", odd, tmp_path)


class Leaving(Exception):  # noqa: N818
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    "error", [SystemExit(0), Leaving("no"), UserError("no"), OSError(2, "no", "x"), StopIteration()]
)
@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_whatever_a_network_raises_in_training_is_blamed_on_it(kind, error, tmp_path):
    def fail(answer):
        raise error

    message = told(kind, in_training(Flat if kind == "backbone" else Head, fail), tmp_path)
    assert f"stranger raised {type(error).__name__}" in message
    assert message.startswith("shop 1: test_network_answers.py:")


def test_a_network_that_exits_when_it_is_first_asked_is_blamed(tmp_path):
    def leave(answer):
        raise SystemExit(0)

    assert "stranger raised SystemExit: 0 from forward" in told("backbone", forwarding(Flat, leave), tmp_path)


def test_memory_that_is_out_and_an_interruption_stay_what_they_are(tmp_path):
    for error, kind in ((torch.OutOfMemoryError("no"), RunFailed), (KeyboardInterrupt(), Interrupted)):

        def fail(answer, error=error):
            raise error

        (tmp_path / kind.__name__).mkdir()
        with pytest.raises(kind, match=r"out of device memory|interrupted"):
            told_plainly("backbone", in_training(Flat, fail), tmp_path / kind.__name__)


@pytest.mark.parametrize("value", [torch.eye(2).to_sparse(), torch.zeros(2, device="meta")], ids=["sparse", "meta"])
@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_a_state_that_no_checkpoint_keeps_is_blamed(kind, value, tmp_path):
    class Holding(Flat if kind == "backbone" else Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("held", value)

    stranger = type("Building", (Stranger,), {"build": lambda self, count: Holding()})
    assert f"the {kind} has 'held' in its state, a tensor that is " in told(kind, stranger, tmp_path)


def test_a_state_that_changes_its_sort_later_is_blamed(tmp_path):
    class Growing(Head):
        def grow(self, classes):
            super().grow(classes)
            self.register_buffer("held", torch.eye(2).to_sparse())

    stranger = type("Building", (Stranger,), {"build": lambda self, count: Growing()})
    assert "the classifier has 'held' in its state" in told("classifier", stranger, tmp_path)


def test_a_plug_ins_own_part_whose_state_is_more_than_tensors_is_blamed_on_it(tmp_path):
    class Telling(nn.Module):
        def get_extra_state(self):
            return {"seen": 3}

    def add(run, **_):
        run.model.extras["mine"] = Telling()

    stranger = with_hook("before_run", add)
    stranger.__module__ = __name__  # the file that the part is of
    message = told("penalty", stranger, tmp_path)
    assert "shop 1: stranger: the part 'mine' in model.extras has '_extra_state' in its state" in message


def test_volumes_among_the_weights_are_taken(tmp_path):
    class Deep(Flat):
        def __init__(self):
            super().__init__()
            self.volume = nn.Conv3d(1, 1, 1)

    stranger = type("Building", (Stranger,), {"build": lambda self, channels: Deep()})
    assert not told("backbone", stranger, tmp_path)


@pytest.mark.parametrize("offer", ["maps", "raw_maps", "pooled"])
def test_a_backbone_that_does_not_return_what_it_offers_is_blamed(offer, tmp_path):
    stranger = type("Offering", (Stranger,), {"offers": frozenset({"features", offer})})
    assert f"the backbone offers '{offer}', but forward returned none" in told("backbone", stranger, tmp_path)


def test_a_classifier_without_the_similarities_it_offers_is_blamed(tmp_path):
    stranger = type("Offering", (Stranger,), {"offers": frozenset({"similarities"})})
    assert "the classifier offers 'similarities', but has no such method" in told("classifier", stranger, tmp_path)
