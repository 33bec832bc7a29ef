import torch
from lwmfw import Images, Selection
from lwmfw.testing import check
from lwmfw_posterise import Posterise, PosteriseOptions, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def refined(pixels, bits):
    """What is stored in the place of one selected image."""
    candidates = Images(pixels[None], torch.tensor([0]))
    wrapper = Posterise(PosteriseOptions(bits=bits)).select_memory(candidates)
    next(wrapper)
    try:
        wrapper.send(Selection({0: torch.tensor([0])}))
    except StopIteration as end:
        return end.value.pixels[0][0]


def test_each_value_moves_to_the_middle_of_its_level():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert refined(pixels, bits=4).unique().tolist() == list(range(8, 256, 16))
    assert ((refined(pixels, bits=4).int() - pixels.int()).abs() <= 8).all()


def test_what_it_has_changed_it_leaves_alone():
    once = refined(torch.arange(256, dtype=torch.uint8).view(1, 16, 16), bits=5)
    assert torch.equal(refined(once, bits=5), once)
