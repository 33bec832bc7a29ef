import torch
from lwmfw.testing import check, tiny_run
from lwmfw_distance import Distance, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_a_class_is_likeliest_at_its_own_point():
    head = Distance(None).build(3)
    head.grow(4)
    logits = head(head.points.detach())
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]
    assert logits.diagonal().tolist() == [0.0] * 4


def test_old_points_stay_where_they_are():
    head = Distance(None).build(3)
    head.grow(2)
    before = head.points.detach().clone()
    head.grow(2)
    assert torch.equal(head.points[:2], before)


def test_learns_in_a_run():
    run = tiny_run({"classifier": {"use": "distance"}}, components=[RECORD])
    assert run.results.average_incremental_accuracy["cnn"] > 0.25
