import torch
from lwmfw.testing import check, tiny_run
from lwmfw_conv3 import Conv3, Conv3Options, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD, width=4)


def test_each_stage_has_twice_the_channels_and_half_the_size():
    said = Conv3(Conv3Options(width=4)).build(3)(torch.zeros(2, 3, 16, 16))
    assert [tuple(m.shape) for m in said.maps] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]
    torch.testing.assert_close(said.features, said.pooled.mean((2, 3)))


def test_learns_in_a_run():
    run = tiny_run({"backbone": {"use": "conv3"}, "data": {"size": 16}}, components=[RECORD])
    assert run.results.average_incremental_accuracy["cnn"] > 0.25
