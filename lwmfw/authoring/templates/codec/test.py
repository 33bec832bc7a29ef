import torch
from lwmfw.testing import check
from lwmfw_zlib import Zlib, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_loses_nothing():
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    codec = Zlib(None)
    assert torch.equal(codec.decode(codec.encode(pixels), (3, 8, 8)), pixels)


def test_smooth_images_take_few_bytes():
    ramp = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64)
    (encoded,) = Zlib(None).encode(ramp)
    assert len(encoded) < 100 < ramp.numel()
