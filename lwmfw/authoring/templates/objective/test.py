import math
import pytest
import torch
from lwmfw.testing import check, tiny_run
from lwmfw_focal import Focal, FocalOptions, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_equals_the_formula():
    logits = torch.tensor([[0.0, 0.0], [math.log(9), 0.0]], dtype=torch.float64)  # p = 0.5 and 0.9 of the first class
    loss = Focal(FocalOptions(gamma=2.0)).loss(logits, torch.tensor([0, 0]))
    by_hand = (0.5**2 * -math.log(0.5) + 0.1**2 * -math.log(0.9)) / 2
    assert loss.item() == pytest.approx(by_hand)


def test_trains_every_step():
    run = tiny_run({"objective": {"use": "focal", "over": "seen"}}, components=[RECORD])
    assert [run.terms[step]["focal"] > 0 for step in (1, 2)] == [True, True]
