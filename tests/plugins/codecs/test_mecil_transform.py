"""What mecil stores of an image: blocks, their components, how bits are dealt out, and what comes back of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from lwmfw_plugins.codecs.mecil._transform import (
    CENTRE,
    Blocks,
    Downsampled,
    before_any_image,
    blocks_of,
    images_of,
    packed,
    principal_components,
    ranges_of,
    share_bits,
    unpacked,
)

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20))


def pictures(shape=(3, 16, 16), count=24, seed=0):
    """Smooth noise with some grain, as photographs are: float64, whole numbers."""
    rng = torch.Generator().manual_seed(seed)
    channels, *size = shape
    smooth = interpolate(torch.rand(count, channels, 5, 5, generator=rng), size, mode="bilinear")
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=rng)).clamp(0, 1).mul(255).round().double()


def fitted(images, block, size):
    found = Blocks.keeping(size, block, *principal_components(blocks_of(images, block).flatten(0, 1)))
    return found.to(torch.device("cpu"), torch.float64)


# blocks and their components


@settings(deadline=None)
@given(shape=SHAPES, block=st.integers(2, 9))
def test_an_image_is_the_blocks_it_was_cut_into(shape, block):
    images = pictures(shape, 2)
    blocks = blocks_of(images, block)
    assert blocks.shape == (2, math.ceil(shape[1] / block) * math.ceil(shape[2] / block), shape[0] * block**2)
    assert torch.equal(images_of(blocks, block, shape), images)


def test_a_block_holds_the_pixels_of_one_place():
    image = torch.arange(2 * 3 * 5, dtype=torch.float64).view(1, 2, 3, 5)
    second = blocks_of(image, 2)[0, 1].view(2, 2, 2)
    assert torch.equal(second, image[0, :, 0:2, 2:4])
    last = blocks_of(image, 2)[0, 5].view(2, 2, 2)
    assert torch.equal(last, image[0, :, 2, 4].view(2, 1, 1).expand(2, 2, 2))


@settings(deadline=None)
@given(seed=st.integers(0, 100))
def test_components_are_the_singular_vectors_of_the_blocks(seed):
    blocks = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 255
    directions, moments = principal_components(blocks)
    _, singular, vectors = np.linalg.svd(blocks.numpy() - CENTRE, full_matrices=False)
    assert moments.numpy() == pytest.approx(singular**2 / 40)
    assert np.abs(directions.numpy() @ vectors.T) == pytest.approx(np.eye(6), abs=1e-6)


@pytest.mark.parametrize(("channels", "block"), [(1, 7), (3, 4)])
def test_before_any_image_the_components_are_orthonormal_and_smooth_ones_come_with_most(channels, block):
    directions, moments = before_any_image(channels, block)
    torch.testing.assert_close(directions @ directions.T, torch.eye(channels * block**2, dtype=torch.float64))
    torch.testing.assert_close(directions[0, : block**2], torch.full((block**2,), 1 / block, dtype=torch.float64))
    assert moments.argmax() == 0
    assert moments.sum().item() == pytest.approx(64**2 * channels * block**2)


# bits


@settings(deadline=None)
@given(moments=st.lists(st.floats(0.1, 1e5), min_size=1, max_size=12, unique=True), share=st.floats(0, 1))
def test_bit_after_bit_goes_where_most_is_left(moments, share):
    bits, left = [0] * len(moments), list(moments)
    total = int(share * 8 * len(moments))
    for _ in range(total):
        best = max((i for i in range(len(moments)) if bits[i] < 8), key=lambda i: left[i])
        bits[best] += 1
        left[best] /= 3
    found = share_bits(torch.tensor(moments, dtype=torch.float64), total).tolist()
    gained = sorted(moments[i] / 3**b for i, n in enumerate(found) for b in range(n))
    assert gained == pytest.approx(sorted(moments[i] / 3**b for i, n in enumerate(bits) for b in range(n)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_range_is_within_two_per_cent_of_the_best_for_a_laplacian(bits):
    values = np.linspace(-25, 25, 20_001)
    density = np.exp(-(2**0.5) * np.abs(values))  # of deviation 1

    def error(reach):
        step = 2 * reach / 2**bits
        middles = (np.clip(np.floor(values / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * step
        return (density * (values - middles) ** 2).sum()

    ours = float(ranges_of(torch.ones(1), torch.tensor([bits]), torch.full((1, 1), 1.0)))
    best = min((0.05 * n for n in range(10, 200)), key=error)
    assert error(ours) <= 1.02 * error(best)


def test_no_range_is_wider_than_bytes_reach():
    (reach,) = ranges_of(torch.tensor([1e6]), torch.tensor([8]), torch.tensor([[0.5, -0.5, 0.5, 0.5]]))
    assert reach == CENTRE * 2


@st.composite
def widths(draw):
    """Bits of coefficients that add up to whole bytes."""
    bits = draw(st.lists(st.integers(1, 8), min_size=1, max_size=10))
    return [*bits, *[1] * (-sum(bits) % 8)]


@settings(deadline=None)
@given(bits=widths(), seed=st.integers(0, 99))
def test_codes_are_packed_without_gaps_the_highest_bit_first(bits, seed):
    draw = np.random.default_rng(seed)
    codes = torch.from_numpy(np.stack([draw.integers(0, 2**b, (2, 3)) for b in bits], 2)).to(torch.uint8)
    stored = packed(codes, torch.tensor(bits))
    for image, row in zip(codes.tolist(), stored.tolist(), strict=True):
        ones = "".join(f"{code:0{b}b}" for block in image for code, b in zip(block, bits, strict=True))
        assert row == [int(ones[i : i + 8], 2) for i in range(0, len(ones), 8)]
    assert torch.equal(unpacked(stored, torch.tensor(bits)), codes.long())


# what comes back


@settings(deadline=None, max_examples=20)
@given(block=st.integers(2, 8), size=st.integers(1, 24), more=st.integers(1, 24), seed=st.integers(0, 20))
def test_more_bytes_are_closer(block, size, more, seed):
    images = pictures(seed=seed)
    errors = [float((fitted(images, block, n).lossy(images) - images).square().mean()) for n in (size, size + more)]
    assert errors[1] <= 1.01 * errors[0]  # a quantiser is best for a Laplacian, which these are not quite


def test_with_a_byte_for_every_value_nothing_but_quantisation_is_lost():
    images = pictures((1, 12, 12))
    transform = fitted(images, 4, 16)
    assert transform.bits.tolist() == [8] * 16
    coefficients = (blocks_of(images, 4) - CENTRE) @ transform.directions.T
    inside = (coefficients.abs() < transform.ranges).all(2)
    assert inside.double().mean() > 0.99
    missed = blocks_of(transform.lossy(images), 4) - blocks_of(images, 4)
    most = (transform.ranges / 256).square().sum().sqrt() + 0.5  # half precision of the directions
    assert (missed.norm(dim=2)[inside] <= most).all()


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, form=st.sampled_from([Downsampled(2), Downsampled(3), "pca"]))
def test_stored_bytes_hold_the_lossy_image(shape, form):
    images = pictures(shape, 3)
    transform = fitted(images, 4, 3) if form == "pca" else form
    stored = transform.encode(images)
    assert (stored.dtype, stored.shape) == (torch.uint8, (3, transform.bytes_of(shape)))
    torch.testing.assert_close(transform.decode(stored, shape), transform.lossy(images), rtol=0, atol=1e-9)


def test_black_images_alone_can_be_learned_from():
    images = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    assert (fitted(images, 4, 2).lossy(images).abs() < 8).all()


def test_downsampling_keeps_what_is_even_and_loses_more_at_a_larger_scale():
    even = torch.full((1, 3, 7, 9), 77.0, dtype=torch.float64)
    torch.testing.assert_close(Downsampled(2).lossy(even), even)
    images = pictures()
    errors = [float((Downsampled(scale).lossy(images) - images).square().mean()) for scale in (2, 4, 8)]
    assert errors == sorted(errors)
