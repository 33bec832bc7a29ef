"""Fashion-MNIST, shipped and whole: files that are found where they should be and checked before they are believed."""

import gzip
import hashlib
import re
import urllib.error
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmfw import UserError
from lwmfw_plugins.data import fashion_mnist
from lwmfw_plugins.data._idx import read_idx, write_idx
from lwmfw_plugins.data.fashion_mnist import FILES, FashionMnist, FashionMnistMini, FashionMnistOptions, MiniOptions

SEEDS = st.integers(0, 2**63 - 1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


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


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
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
def test_a_damaged_gz_is_refused_with_the_file_and_the_digest_it_should_have(publish, tmp_path, damage):
    part = "train images"
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

    def read(position):
        raw = bytearray(packed)
        raw[position // 8] ^= 1 << position % 8
        file.write_bytes(raw)
        try:
            return read_idx(file, digest)
        except UserError as error:
            return str(error)

    answers = [read(position) for position in torch.randperm(8 * len(packed), generator=rng())[:400].tolist()]
    refusals = [answer for answer in answers if isinstance(answer, str)]
    assert len(refusals) > 300
    assert all(str(file) in refusal for refusal in refusals)
    # the rest changed a time stamp, say
    arrays = [answer for answer in answers if not isinstance(answer, str)]
    assert all(torch.equal(array, made_arrays()["train images"]) for array in arrays)


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
