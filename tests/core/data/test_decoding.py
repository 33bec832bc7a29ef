"""Images in files: what they look like decoded, the same with any number of workers, and what cannot be decoded."""

import re
import struct
import zlib

import pytest
import torch
from helpers.pictures import chunk, noise, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from lwmfw import DataSet, ImageFiles, UserError, decode_images, unreadable_images
from lwmfw.data.arrange import arrange
from lwmfw.data.decoding import View, centre_box, random_box
from lwmfw.data.loader import EpochShape, Loader

SEEDS = st.integers(0, 2**63 - 1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def shown(path, size=16, resize=16):
    return View(size, resize).show(str(path), 0)


def as_tensor(image, size=16):
    square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return v2.functional.pil_to_tensor(square)


def difference(one, two):
    return (one.int() - two.int()).abs().float().mean().item()


@pytest.fixture
def files(tmp_path):
    """Twelve files of different sizes, sorted by class."""
    paths = [save(noise(30 + 5 * n, 60 - 3 * n, n), tmp_path / f"{n}.jpg", quality=95) for n in range(12)]
    return ImageFiles(paths, torch.arange(12) // 3, size=16, resize=18)


def loader(flip=True):
    return Loader(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 0, flip)


# which part of a file is shown


@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=SEEDS)
@settings(max_examples=200, deadline=None)
def test_the_random_part_is_the_one_torchvision_draws(width, height, seed):
    left, top, right, bottom = random_box(width, height, rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = torch.empty(3, height, width, device="meta")
        drawn = v2.RandomResizedCrop(8).make_params([image])
    assert (top, left, bottom - top, right - left) == tuple(drawn[key] for key in ("top", "left", "height", "width"))


@given(width=st.integers(1, 300), height=st.integers(1, 300), share=st.floats(0.1, 1))
def test_the_centre_is_a_square_in_the_middle(width, height, share):
    left, top, right, bottom = centre_box(width, height, share)
    assert right - left == pytest.approx(bottom - top)
    assert right - left == pytest.approx(share * min(width, height))
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)


@pytest.mark.parametrize("size", [(100, 64), (64, 100), (400, 400), (20, 30)])
def test_evaluation_shows_what_resize_and_centre_crop_show(tmp_path, size):
    image = noise(*size)
    usual = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor()])(image)
    assert difference(shown(save(image, tmp_path / "a.png"), 32, 36), usual) < 1


def test_training_shows_other_parts_for_other_seeds_and_the_same_for_the_same(tmp_path):
    path = save(noise(60, 50), tmp_path / "a.png")
    view = View(16, None, flip=True)
    before = torch.random.get_rng_state()
    one, again, two = (view.show(path, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_half_of_the_training_images_are_mirrored_if_they_may_be(tmp_path):
    image = Image.linear_gradient("L").rotate(90)  # bright on one side
    path = save(image, tmp_path / "a.png")

    def mirrored(flip):
        views = [View(8, None, flip).show(path, seed)[0].float().mean(0) for seed in range(200)]
        return sum(bool(view[0] < view[-1]) for view in views)

    assert mirrored(flip=False) in (0, 200)
    assert 70 < mirrored(flip=True) < 130


# what files hold


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = noise(40, 40).convert(mode)
    path = save(image, tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    assert difference(shown(path), as_tensor(image)) < 1


def test_a_cmyk_jpeg_is_read(tmp_path):
    image = noise(40, 40)
    path = save(image.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert difference(shown(path), as_tensor(image)) < 4


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    grey = torch.arange(256, dtype=torch.int32).repeat(256, 1)
    path = save(Image.fromarray((257 * grey).numpy().astype("uint16")), tmp_path / "a.png")
    expected = as_tensor(Image.fromarray(grey.byte().numpy()))
    assert difference(shown(path), expected) <= 1


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {"format": "MPO", "quality": 95}), ("a.webp", {"lossless": True}), ("a.tif", {})]
)
def test_of_several_pictures_in_a_file_the_first_is_shown(tmp_path, name, options):
    first, second = noise(400, 300), noise(400, 300, seed=1)
    path = save(first, tmp_path / name, save_all=True, append_images=[second], **options)
    assert difference(shown(path), as_tensor(noise(400, 300).crop((50, 0, 350, 300)))) < 2


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_puts_an_image_upright(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if suffix == "jpg" else {}
    path = save(noise(40, 24), tmp_path / f"a.{suffix}", exif=exif, **options)
    with Image.open(path) as file:
        from PIL.ImageOps import exif_transpose

        upright = exif_transpose(file).convert("RGB")
    usual = v2.Compose([v2.Resize(16), v2.CenterCrop(16), v2.PILToTensor()])(upright)
    assert difference(shown(path), usual) < 1.5


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path):
    image = noise(1600, 1200)
    path = save(image, tmp_path / "a.jpg", quality=95)
    usual = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor()])(image)
    assert difference(shown(path, 32, 36), usual) < 2


# what cannot be read


def bomb(width, height):
    """A small PNG that says it is large."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


DAMAGES = {
    "empty": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "foreign": lambda raw: b"<html>404</html>",
    "large": lambda raw: bomb(10_000, 10_000),
    "vast": lambda raw: bomb(60_000, 60_000),
    "a header alone": lambda raw: bomb(10, 10),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_damaged_file_is_found_with_its_reason(tmp_path, damage, suffix):
    good = save(noise(90, 80), tmp_path / f"good.{suffix}")
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(DAMAGES[damage]((tmp_path / f"good.{suffix}").read_bytes()))
    found = unreadable_images([good, str(bad), good])
    assert list(found) == [str(bad)]
    assert found[str(bad)]
    assert "\n" not in found[str(bad)]


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path):
    assert list(unreadable_images([str(tmp_path / "none.png"), str(tmp_path)])) == [
        str(tmp_path / "none.png"),
        str(tmp_path),
    ]
    assert unreadable_images([]) == {}


SHOWS = {
    "training": lambda files: list(loader().training_batches(files, EpochShape(len(files), 0, 4), rng())),
    "evaluation": lambda files: list(loader().evaluation_batches(files)),
    "once": decode_images,
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", SHOWS)
def test_a_file_that_is_damaged_during_a_run_is_named(files, kind, workers, monkeypatch):
    monkeypatch.setattr("lwmfw.data.workers.worker_count", lambda: workers)
    with open(files.paths[7], "wb") as stream:
        stream.write(b"no image")
    with pytest.raises(UserError, match=re.escape(f"{files.paths[7]}: cannot be read (no image of a known format)")):
        SHOWS[kind](files)


# batches


def epoch(files, batch_size=5, seed=1):
    batches = list(loader().training_batches(files, EpochShape(len(files), 0, batch_size), rng(seed)))
    return torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])


def test_batches_do_not_depend_on_the_number_of_workers(files, monkeypatch):
    seen = []
    before = torch.random.get_rng_state()
    for workers in (0, 1, 3):
        monkeypatch.setattr("lwmfw.data.workers.worker_count", lambda count=workers: count)
        tested = torch.cat([x for x, _ in loader().evaluation_batches(files)])
        seen.append((*epoch(files), tested, decode_images(files).pixels))
    assert torch.equal(torch.random.get_rng_state(), before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_an_epoch_is_a_function_of_the_generator_and_not_of_the_batch_size(files):
    first, labels = epoch(files)
    assert sorted(labels.tolist()) == files.labels.tolist()
    assert torch.equal(epoch(files, batch_size=12)[0], first)
    assert not torch.equal(epoch(files, seed=2)[0], first)


def test_images_keep_their_labels(tmp_path):
    paths = [save(Image.new("RGB", (20, 20), (10 * n, 0, 0)), tmp_path / f"{n}.png") for n in range(10)]
    files = ImageFiles(paths, torch.arange(10), 8, 8)
    images, labels = epoch(files, batch_size=3)
    assert images[:, 0].amax((1, 2)).long().tolist() == (10 * labels).tolist()
    pairs = list(loader().evaluation_batches(files))
    assert torch.cat([x for x, _ in pairs])[:, 0, 0, 0].long().tolist() == [10 * n for n in range(10)]
    assert torch.cat([y for _, y in pairs]).tolist() == list(range(10))


def test_decoded_images_are_what_evaluation_shows(files):
    images = decode_images(files)
    assert images.pixels.shape == (12, 3, 16, 16)
    assert images.pixels.dtype == torch.uint8
    assert torch.equal(images.labels, files.labels)
    tested = torch.cat([x for x, _ in loader().evaluation_batches(files)])
    assert torch.equal(images.pixels.float(), tested)


def test_batches_are_normalised(files):
    data = DataSet(files, files, list("abcd"), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    ((images, _),) = Loader.of(data, torch.device("cpu")).evaluation_batches(files)
    plain = decode_images(files).pixels.float() / 255
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        torch.testing.assert_close(images[:, channel], (plain[:, channel] - mean) / std, rtol=1e-4, atol=1e-5)


def test_files_are_put_in_class_order_and_held_out_like_images(files):
    data = DataSet(files, files, list("abcd"), [0.0] * 3, [1.0] * 3)
    arranged = arrange(data, [2, 0], validation=0.0, seed=0)
    assert arranged.train.paths == files.paths[6:9] + files.paths[0:3]
    assert arranged.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    held = arrange(data, [2, 0], validation=0.3, seed=0)
    assert (len(held.train), len(held.test)) == (4, 2)
    assert sorted(held.train.paths + held.test.paths) == sorted(arranged.train.paths)


def test_files_are_chosen_like_images(files):
    some = files.select(torch.tensor([4, 0, 11]))
    assert (some.paths, some.labels.tolist()) == ([files.paths[i] for i in (4, 0, 11)], [1, 0, 3])
    assert files.of_classes(range(1, 3)).paths == files.paths[3:9]
    assert len(files.of_classes(range(1, 1))) == 0
    assert (files.channels, files.size) == (3, 16)
    images = decode_images(files)
    assert torch.equal(images.select(torch.tensor([4, 0])).pixels, images.pixels[[4, 0]])
    assert (images.channels, images.size) == (3, 16)
