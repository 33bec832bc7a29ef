"""Data: batches, the class order and its steps, the shipped set, and files that are checked before they are believed."""

import gzip
import hashlib
import random
import re
import urllib.error
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lwmfw import DataSet, Images, UserError
from lwmfw.data import Loader, arrange, crop_and_flip
from lwmfw.recipe import Scenario
from lwmfw.scenario import class_order, steps_of
from lwmfw_plugins.data import fashion_mnist
from lwmfw_plugins.data.fashion_mnist import FILES, FashionMnist, FashionMnistMini, FashionMnistOptions, MiniOptions
from lwmfw_plugins.data.idx import read_idx, write_idx
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


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (1, False), (0, True), (1, True)])
def test_an_epoch_shows_every_image_exactly_once_with_its_label(padding, flip):
    images = numbered([i // 4 for i in range(22)])
    batches = list(Loader(torch.zeros(1), torch.ones(1), padding, flip).training_batches(images, 8, rng()))
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
        return torch.cat([batch.images for batch in loader.training_batches(images, 8, rng(seed))])

    before = torch.random.get_rng_state()
    first = epoch(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(epoch(1), first)
    assert not torch.equal(epoch(2), first)


def test_batches_of_another_size_show_the_same_augmented_images():
    images = Images(torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=rng()), torch.arange(20))
    loader = Loader(torch.zeros(1), torch.ones(1), 2, True)
    epochs = [torch.cat([b.images for b in loader.training_batches(images, size, rng(1))]) for size in (3, 20)]
    assert torch.equal(*epochs)


def test_every_shift_occurs_mirrored_and_not_about_equally_often():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    images = Images(image.repeat(3600, 1, 1, 1), torch.zeros(3600, dtype=torch.int64))
    batches = Loader(torch.zeros(1), torch.ones(1), 1, True).training_batches(images, 600, rng())
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


# class order and steps


@given(first=st.integers(1, 20), increment=st.integers(1, 10), later=st.integers(0, 10))
@settings(deadline=None)
def test_steps_share_out_the_classes(first, increment, later):
    classes = first + increment * later
    steps = steps_of(Scenario(first=first, increment=increment), classes)
    assert [c for step in steps for c in step.new_classes] == list(range(classes))
    assert [len(step.new_classes) for step in steps] == [first] + [increment] * later
    assert [(step.index, step.total) for step in steps] == [(n, later + 1) for n in range(1, later + 2)]
    for step in steps:
        assert [*step.old_classes, *step.new_classes] == list(step.seen_classes)


@given(first=st.integers(1, 30), increment=st.integers(0, 12), classes=st.integers(0, 60))
@settings(deadline=None)
def test_classes_that_make_no_whole_steps_are_refused_and_every_proposal_works(first, increment, classes):
    try:
        steps = steps_of(Scenario(first=first, increment=increment), classes)
    except UserError as error:
        assert str(error).startswith("scenario.")
        proposed = re.search(r"choose of ([\d, ]+),", str(error))
        assert bool(proposed) == (classes > first)
        for n in map(int, proposed[1].split(", ") if proposed else []):
            assert steps_of(Scenario(first=first, increment=n), classes)[-1].seen_classes == range(classes)
    else:
        assert steps[-1].seen_classes == range(classes)


@given(labels=st.permutations(range(12)), used=st.integers(1, 12), classes=st.integers(0, 12), seed=SEEDS)
@settings(deadline=None)
def test_an_explicit_order_is_kept_whatever_the_seed(labels, used, classes, seed):
    order = labels[:used]
    scenario = Scenario(first=1, order=order, classes=min(classes, used))
    assert class_order(scenario, 12, seed) == order[: min(classes, used) or used]


@given(seed=SEEDS, classes=st.integers(1, 50), first=st.integers(1, 9), draw=st.data())
@settings(deadline=None)
def test_the_order_of_a_seed_is_a_permutation_that_depends_only_on_the_seed(seed, classes, first, draw):
    whole = class_order(Scenario(first=1), classes, seed)
    assert sorted(whole) == list(range(classes))
    torch.manual_seed(first)  # the global generator has no say
    used = draw.draw(st.integers(1, classes))
    assert class_order(Scenario(first=first, increment=2, classes=used), classes, seed) == whole[:used]


def test_seeds_give_different_orders():
    orders = {tuple(class_order(Scenario(first=1), 10, seed)) for seed in range(20)}
    assert len(orders) == 20


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"order": [0, 10]}, r"scenario\.order: 10 is no class; list each of 0\.\.9"),
        ({"order": [3, 1, 3]}, r"scenario\.order: a class stands twice"),
        ({"order": [3, 1], "classes": 3}, r"scenario\.classes: 3 wanted, but there are 2"),
        ({"classes": 11}, r"scenario\.classes: 11 wanted, but there are 10"),
    ],
)
def test_a_wrong_class_order_is_refused(scenario, words):
    with pytest.raises(UserError, match=words):
        class_order(Scenario(first=1, **scenario), 10, seed=0)


# fashion-mnist


def test_the_shipped_set_is_balanced_and_small():
    data = FashionMnistMini(MiniOptions()).load()
    for images, count in ((data.train, 320), (data.test, 100)):
        assert images.pixels.shape == (10 * count, 1, 28, 28)
        assert images.pixels.dtype == torch.uint8
        assert images.labels.bincount().tolist() == [count] * 10
    assert len(data.class_names) == FashionMnistMini.class_count == 10
    assert (data.padding, data.flip) == (2, True)


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_shipped_set_is_the_first_images_of_each_class_of_the_originals():
    mini, whole = FashionMnistMini(MiniOptions()).load(), FashionMnist(FashionMnistOptions()).load()
    assert (len(whole.train), len(whole.test)) == (60_000, 10_000)
    for few, many, count in ((mini.train, whole.train, 320), (mini.test, whole.test, 100)):
        met, chosen = Counter(), []
        for index, label in enumerate(many.labels.tolist()):
            met[label] += 1
            if met[label] <= count:
                chosen.append(index)
        assert torch.equal(few.pixels, many.pixels[chosen])
        assert torch.equal(few.labels, many.labels[chosen])


def made_arrays():
    """The four arrays of a set of 10 classes with 2 training images and 1 test image each, of 4x5 pixels."""
    arrays = {}
    for split, count in (("train", 20), ("test", 10)):
        arrays[f"{split} images"] = torch.randint(0, 256, (count, 4, 5), dtype=torch.uint8, generator=rng(count))
        arrays[f"{split} labels"] = torch.arange(count, dtype=torch.uint8) % 10
    return arrays


@pytest.fixture
def publish(monkeypatch):
    """Writes made files into a folder, plain or gzipped, and makes them the originals."""

    def write(folder, packed):
        folder.mkdir(parents=True, exist_ok=True)
        contents = {part: write_idx(array) for part, array in made_arrays().items()}
        digests = {part: hashlib.sha256(content).hexdigest() for part, content in contents.items()}
        monkeypatch.setattr(fashion_mnist, "ORIGINAL_SHA256", digests)
        for part, content in contents.items():
            if packed:
                (folder / f"{FILES[part]}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / FILES[part]).write_bytes(content)
        return folder

    return write


def load_from(root, **options):
    return FashionMnist(FashionMnistOptions(root=str(root), **options)).load()


def refuse_download(*args, **kwargs):
    raise AssertionError("a download was attempted")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("layout", ["FashionMNIST/raw", "."])
def test_fashion_mnist_is_found_in_torchvisions_layout(publish, tmp_path, packed, layout):
    publish(tmp_path / layout, packed)
    data, arrays = load_from(tmp_path), made_arrays()
    for split, images in (("train", data.train), ("test", data.test)):
        assert torch.equal(images.pixels[:, 0], arrays[f"{split} images"])
        assert torch.equal(images.labels, arrays[f"{split} labels"].long())


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_idx_is_read_as_it_was_written(shape, seed, tmp_path_factory):
    array = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng(seed))
    content = write_idx(array)
    file = tmp_path_factory.mktemp("idx") / "array"
    file.write_bytes(content)
    assert torch.equal(read_idx(file, hashlib.sha256(content).hexdigest()), array)


DAMAGES = {
    "corrupted": lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :],
    "truncated": lambda raw: raw[:-3],
    "halved": lambda raw: raw[: len(raw) // 2],
    "longer": lambda raw: raw + b"x",
    "foreign": lambda raw: b"<html>404</html>",
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", FILES)
def test_another_content_is_refused_with_the_file_and_both_digests(publish, tmp_path, part, damage, packed):
    folder = publish(tmp_path, packed)
    content = DAMAGES[damage](write_idx(made_arrays()[part]))
    file = folder / (FILES[part] + ".gz" * packed)
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError) as error:
        load_from(tmp_path)
    assert str(file) in str(error.value)
    assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert fashion_mnist.ORIGINAL_SHA256[part] in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", FILES)
def test_a_damaged_gz_is_refused_with_the_file_and_the_digest_it_should_have(publish, tmp_path, part, damage):
    file = publish(tmp_path, packed=True) / f"{FILES[part]}.gz"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(UserError) as error:
        load_from(tmp_path)
    assert str(file) in str(error.value)
    assert fashion_mnist.ORIGINAL_SHA256[part] in str(error.value)


def test_a_flipped_bit_in_a_gz_is_refused_or_changes_no_pixel(tmp_path):
    content = write_idx(made_arrays()["train images"])
    packed, digest = gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()
    file = tmp_path / "images.gz"
    for position in range(8 * len(packed)):
        raw = bytearray(packed)
        raw[position // 8] ^= 1 << position % 8
        file.write_bytes(raw)
        try:
            array = read_idx(file, digest)
        except UserError as error:
            assert str(file) in str(error)  # noqa: PT017 - both ways out are right
        else:
            assert torch.equal(array, made_arrays()["train images"])  # a time stamp, say


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path):
    content = write_idx(torch.zeros(2**16, dtype=torch.uint8))
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=re.escape(str(file))):
        read_idx(file, hashlib.sha256(content).hexdigest(), limit=2**12)


@pytest.mark.parametrize("part", FILES)
def test_an_incomplete_fashion_mnist_names_the_paths_and_what_gets_it(publish, tmp_path, part, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", refuse_download)
    folder = publish(tmp_path / "FashionMNIST" / "raw", packed=True)
    (folder / f"{FILES[part]}.gz").unlink()
    with pytest.raises(UserError) as error:
        load_from(tmp_path)
    for words in (str(folder), str(tmp_path), "dataset-fashion-mnist", "data.root", "data.download = true"):
        assert words in str(error.value)


def test_without_a_root_debians_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", refuse_download)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "debian"))):
        FashionMnist(FashionMnistOptions()).load()


def test_what_is_there_is_not_downloaded(publish, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", refuse_download)
    publish(tmp_path, packed=True)
    assert len(load_from(tmp_path, download=True).train) == 20


def test_download_fetches_what_is_missing_into_root(publish, tmp_path, monkeypatch):
    asked = []

    def download(root, download):
        asked.append((root, download))
        publish(tmp_path / "FashionMNIST" / "raw", packed=True)

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download)
    assert len(load_from(tmp_path, download=True).train) == 20
    assert asked == [(str(tmp_path), True)]


@pytest.mark.parametrize(
    "failure", [urllib.error.URLError("no route to host"), RuntimeError("file not found or corrupted"), TimeoutError()]
)
def test_a_failed_download_is_the_users_to_know(tmp_path, monkeypatch, failure):
    def download(root, download):
        raise failure

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download)
    with pytest.raises(UserError, match=f"download into {re.escape(str(tmp_path))} failed"):
        load_from(tmp_path, download=True)


def test_download_without_a_place_is_refused():
    with pytest.raises(UserError, match=r"data\.download: needs a place; set data\.root"):
        FashionMnist(FashionMnistOptions(download=True))


# synthetic


@pytest.mark.parametrize("seed", random.Random(0).sample(range(1000), 3))
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
