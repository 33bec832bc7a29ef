"""Data: batches, the data set in class order, and images made on the spot."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lwmfw import DataSet, ImageFiles, Images, UserError
from lwmfw.data.arrange import arrange, together
from lwmfw.data.loader import EpochShape, Loader, crop_and_flip
from lwmfw_plugins.data.synthetic import Synthetic, SyntheticOptions

SEEDS = st.integers(0, 2**63 - 1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(labels, size=3, first=0):
    """Images of one colour: image i has the value first + i everywhere."""
    values = torch.arange(first, first + len(labels), dtype=torch.uint8)
    return Images(values.view(-1, 1, 1, 1).repeat(1, 1, size, size), torch.tensor(labels, dtype=torch.int64))


def values(images):
    return images.pixels[:, 0, 0, 0].tolist()


def data_set(train, test):
    return DataSet(train, test, ["a", "b", "c", "d"], [0.0], [1 / 255])


def same(one, two):
    return all(
        torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)
        for a, b in ((one.train, two.train), (one.test, two.test))
    )


# batches


def slow_crop_and_flip(pixels, shifts, mirrored, padding):
    _, channels, height, width = pixels.shape
    out = []
    for image, row, column, mirror in zip(pixels, *shifts.tolist(), mirrored.tolist(), strict=True):
        canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=pixels.dtype)
        canvas[:, padding : padding + height, padding : padding + width] = image
        cut = canvas[:, row : row + height, column : column + width]
        out.append(torch.stack([cut[:, :, width - 1 - x] for x in range(width)], 2) if mirror else cut)
    return torch.stack(out)


@given(draw=st.data(), shape=st.tuples(*[st.integers(1, n) for n in (4, 3, 6, 6)]), padding=st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_crop_and_flip_is_the_loop_over_images(draw, shape, padding):
    def per_image(values):
        return draw.draw(st.lists(values, min_size=shape[0], max_size=shape[0]))

    pixels = torch.randint(1, 256, shape, dtype=torch.uint8, generator=rng())
    shifts = torch.tensor([per_image(st.integers(0, 2 * padding)) for _ in "yx"])
    mirrored = torch.tensor(per_image(st.booleans()))
    actual = crop_and_flip(pixels, shifts, mirrored, padding)
    assert actual.dtype == torch.uint8
    assert torch.equal(actual, slow_crop_and_flip(pixels, shifts, mirrored, padding))


def test_normalise_is_the_formula():
    data = DataSet(*[numbered([0])] * 2, ["a"], mean=[0.1, 0.5, 0.7], std=[0.2, 0.3, 1.5])
    pixels = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=rng())
    before = pixels.clone()
    actual = Loader.of(data, torch.device("cpu")).normalise(pixels)
    expected = torch.empty(pixels.shape, dtype=torch.float64)
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        expected[:, channel] = (pixels[:, channel].double() / 255 - mean) / std
    assert actual.dtype == torch.float32
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(pixels, before)


def whole(images, batch_size):
    return EpochShape(len(images), 0, batch_size)


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (1, False), (0, True), (1, True)])
def test_an_epoch_shows_every_image_exactly_once_with_its_label(padding, flip):
    images = numbered([i // 4 for i in range(22)])
    batches = list(
        Loader(torch.zeros(1), torch.ones(1), padding, flip).training_batches(images, whole(images, 8), rng())
    )
    assert [len(batch.labels) for batch in batches] == [8, 8, 6]
    # a shift of at most 1 leaves the centre of a 3x3 image of one colour inside it
    shown = torch.cat([batch.images[:, 0, 1, 1] for batch in batches]).long()
    labels = torch.cat([batch.labels for batch in batches])
    assert sorted(shown.tolist()) == list(range(22))
    assert shown.tolist() != list(range(22))
    assert torch.equal(labels, shown // 4)
    assert not any(batch.from_memory.any() for batch in batches)


def test_an_epoch_is_a_function_of_the_generator_alone():
    images = Images(torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=rng()), torch.arange(20))
    loader = Loader(torch.zeros(1), torch.ones(1), 2, True)

    def epoch(seed):
        return torch.cat([batch.images for batch in loader.training_batches(images, whole(images, 8), rng(seed))])

    before = torch.random.get_rng_state()
    first = epoch(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(epoch(1), first)
    assert not torch.equal(epoch(2), first)


def test_batches_of_another_size_show_the_same_augmented_images():
    images = Images(torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=rng()), torch.arange(20))
    loader = Loader(torch.zeros(1), torch.ones(1), 2, True)
    epochs = [
        torch.cat([b.images for b in loader.training_batches(images, whole(images, size), rng(1))]) for size in (3, 20)
    ]
    assert torch.equal(*epochs)


@given(count=st.integers(2, 60), held=st.integers(1, 59), size=st.integers(2, 20), replay=st.floats(0.01, 0.99))
def test_with_replay_every_batch_has_its_share_of_exemplars_and_new_images_come_once(count, held, size, replay):
    if held >= count:
        return
    shape = EpochShape(count, held, size, replay)
    batches = shape.shuffled(rng())
    share = min(max(round(size * replay), 1), size - 1)
    assert len(batches) == shape.batches
    assert all((index < held).sum() == share for index in batches)
    assert all(len(index) == size for index in batches[:-1])
    positions = torch.cat(batches)
    assert sorted(positions[positions >= held].tolist()) == list(range(held, count))
    shown = positions[positions < held].bincount(minlength=held)
    assert shown.max() - shown.min() <= 1


def test_without_replay_every_image_comes_once():
    for shape in (EpochShape(20, 5, 6), EpochShape(20, 0, 6, 0.5), EpochShape(20, 20, 6, 0.5)):
        assert sorted(torch.cat(shape.shuffled(rng())).tolist()) == list(range(20))
        assert shape.batches == 4


@given(count=st.integers(1, 70), size=st.integers(1, 40))
def test_no_batch_is_of_one_image_unless_all_are(count, size):
    shape = EpochShape(count, 0, size)
    batches = shape.shuffled(rng())
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert len(batches) == shape.batches
    assert size == 1 or count == 1 or all(len(index) > 1 for index in batches)
    as_before = torch.randperm(count, generator=rng()).split(size)
    assert [index.tolist() for index in batches[:-1]] == [index.tolist() for index in as_before[: len(batches) - 1]]


def test_an_exemplar_that_comes_twice_is_augmented_twice():
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    images = Images(image.repeat(9, 1, 1, 1), torch.tensor([0] + [1] * 8))
    batches = list(
        Loader(torch.zeros(1), torch.ones(1), 2, True).training_batches(images, EpochShape(9, 1, 2, 0.5), rng())
    )
    assert len(batches) == 8
    assert all(batch.from_memory.tolist() == [False, True] for batch in batches)
    assert len({tuple(batch.images[1].flatten().tolist()) for batch in batches}) > 3


def brightened(images, shape, seed=0, brightness=0.25):
    loader = Loader(torch.zeros(1), torch.ones(1), 0, False, brightness)
    return list(loader.training_batches(images, shape, rng(seed)))


def test_brightness_multiplies_every_image_by_a_number_of_its_own_and_no_pixel_leaves_its_range():
    images = Images(torch.full((4000, 1, 2, 2), 100, dtype=torch.uint8), torch.zeros(4000, dtype=torch.int64))
    shown = torch.cat([batch.images for batch in brightened(images, whole(images, 1000))])
    factors = shown[:, 0, 0, 0] / 100
    assert torch.equal(shown, shown[:, :1, :1, :1].expand_as(shown))
    assert 0.75 <= factors.min() < 0.76
    assert 1.24 < factors.max() <= 1.25
    assert abs(factors.mean() - 1) < 0.01
    white = Images(torch.full((50, 1, 2, 2), 250, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
    assert max(batch.images.max() for batch in brightened(white, whole(white, 50))) == 255


def test_brightness_is_drawn_for_an_epoch_whatever_the_size_of_its_batches():
    images = Images(torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=rng()), torch.arange(20))
    epochs = [torch.cat([b.images for b in brightened(images, whole(images, size))]) for size in (3, 20)]
    assert torch.equal(*epochs)
    assert not torch.equal(epochs[0], torch.cat([b.images for b in brightened(images, whole(images, 3), seed=1)]))
    twice = brightened(images, EpochShape(20, 1, 2, 0.5))  # one exemplar in every batch
    assert len({float(batch.images[0].sum()) for batch in twice}) == len(twice)


def test_every_shift_occurs_mirrored_and_not_about_equally_often():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    images = Images(image.repeat(3600, 1, 1, 1), torch.zeros(3600, dtype=torch.int64))
    batches = Loader(torch.zeros(1), torch.ones(1), 1, True).training_batches(images, whole(images, 600), rng())
    seen = Counter(tuple(x.flatten().tolist()) for batch in batches for x in batch.images)
    assert len(seen) == 3 * 3 * 2
    # each is expected 200 times, with a deviation of 14
    assert all(130 < count < 270 for count in seen.values())


def test_evaluation_shows_every_image_in_stored_order():
    images = Images(torch.randint(0, 256, (600, 1, 2, 2), dtype=torch.uint8, generator=rng()), torch.arange(600))
    batches = list(Loader(torch.zeros(1), torch.ones(1), 2, True).evaluation_batches(images))
    assert torch.equal(torch.cat([x for x, _ in batches]), images.pixels.float())
    assert torch.equal(torch.cat([y for _, y in batches]), images.labels)


# the data set in class order


def test_arrange_sorts_by_the_class_order_and_drops_unused_classes():
    data = data_set(numbered([2, 0, 1, 3, 0, 3, 2, 3]), numbered([3, 1, 0, 2, 0]))
    arranged = arrange(data, [3, 0, 2], validation=0.0, seed=0)
    assert values(arranged.train) == [3, 5, 7, 1, 4, 0, 6]
    assert arranged.train.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert values(arranged.test) == [0, 2, 4, 3]
    assert arranged.test.labels.tolist() == [0, 1, 1, 2]
    assert values(arranged.train.of_classes(range(1, 3))) == [1, 4, 0, 6]
    assert len(arranged.train.of_classes(range(1, 1))) == 0


def test_arrange_keeps_the_stored_order_within_a_class():
    labels = torch.randint(0, 4, (5000,), generator=rng())  # few enough would stay in order by luck
    index = torch.arange(5000)
    pixels = torch.stack([index // 256, index % 256], 1).to(torch.uint8).view(-1, 2, 1, 1)
    arranged = arrange(data_set(Images(pixels, labels), numbered([0, 1, 2, 3])), [2, 0, 3], validation=0.0, seed=0)
    expected = [i for c in (2, 0, 3) for i, label in enumerate(labels.tolist()) if label == c]
    high, low = arranged.train.pixels.long().flatten(1).T
    assert (256 * high + low).tolist() == expected


@pytest.mark.parametrize("test_labels", [[0, 0, 1], []], ids=["of a class", "at all"])
@pytest.mark.parametrize("part", ["training", "test"])
def test_a_class_without_images_is_named(part, test_labels):
    whole, poor = numbered([0, 1, 2, 3]), numbered(test_labels)
    data = data_set(poor, whole) if part == "training" else data_set(whole, poor)
    missing = "d" if test_labels else "[ad]"
    with pytest.raises(UserError, match=f"class '{missing}' has no {part} images"):
        arrange(data, [0, 1, 3], validation=0.0, seed=0)


def test_validation_takes_a_share_of_each_class():
    data = data_set(numbered([0, 1, 2, 3] * 8), numbered([0, 1, 2, 3], first=200))
    arranged = arrange(data, [2, 0, 1], validation=0.25, seed=0)
    assert arranged.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert arranged.test.labels.tolist() == [0] * 2 + [1] * 2 + [2] * 2
    both = values(arranged.train) + values(arranged.test)
    assert sorted(both) == [i for i in range(32) if i % 4 != 3]  # disjoint, all of them, none of the test set
    for part in (arranged.train, arranged.test):
        assert [[2, 0, 1][label] for label in part.labels.tolist()] == [value % 4 for value in values(part)]


def test_the_validation_split_depends_on_the_seed_alone_and_not_on_the_test_set():
    train = numbered([0, 1] * 40)

    def split(seed, test):
        return arrange(data_set(train, test), [0, 1], validation=0.3, seed=seed)

    first = split(1, numbered([0, 1]))
    torch.manual_seed(9)
    assert same(split(1, numbered([])), first)
    assert not same(split(2, numbered([0, 1])), first)


def test_a_small_share_still_holds_one_image_of_each_class_out():
    arranged = arrange(data_set(numbered([0, 1] * 3), numbered([0, 1])), [0, 1], validation=0.01, seed=0)
    assert arranged.test.labels.tolist() == [0, 1]
    assert len(arranged.train) == 4


# synthetic


@pytest.mark.parametrize("seed", [0, 7, 2**62])
def test_synthetic_is_a_function_of_its_options(seed):
    options = SyntheticOptions(classes=3, train_per_class=5, test_per_class=2, size=6, channels=2, seed=seed)
    before = torch.random.get_rng_state()
    first = Synthetic(options).load()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(seed + 1)
    assert same(Synthetic(options).load(), first)
    assert not same(Synthetic(options.model_copy(update={"seed": seed + 1})).load(), first)
    assert first.train.pixels.shape == (15, 2, 6, 6)
    assert first.train.labels.bincount().tolist() == [5] * 3
    assert first.test.labels.bincount().tolist() == [2] * 3


def test_synthetic_without_noise_shows_the_same_patterns_in_training_and_test():
    data = Synthetic(SyntheticOptions(noise=0.0, train_per_class=3, test_per_class=2)).load()
    for c in range(4):
        shown = torch.cat([part.pixels[part.labels == c] for part in (data.train, data.test)])
        assert torch.equal(shown, shown[:1].expand_as(shown))


def test_files_of_several_folders_are_one_set_where_one_range_holds_for_all():
    files = [ImageFiles([name], torch.tensor([0]), 8, 8, values=values) for name, values in (("a", ()), ("b", (0, 9)))]
    assert (together(files).paths, together(files).values) == (["a", "b"], (0, 9))
    with pytest.raises(UserError, match=r"files have values of \[0, 9\] and \[0, 5\], and cannot be one set"):
        together([*files, replace(files[1], values=(0, 5))])
