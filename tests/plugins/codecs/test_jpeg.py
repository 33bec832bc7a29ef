"""Exemplars as JPEG: what comes back, how many bytes it takes, what is refused, and how a quality is chosen."""

import io
import itertools

import numpy as np
import pytest
import simplejpeg
import torch
from helpers.pictures import noise, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch.nn.functional import interpolate, normalize

from lwmfw import Observer, UserError, hookimpl
from lwmfw.errors import Interrupted
from lwmfw.testing import tiny_run
from lwmfw_plugins.codecs._volume import log_volume, volume_change
from lwmfw_plugins.codecs.jpeg import Jpeg, JpegOptions, compress, header_of

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))
SEEN = {"objective": {"use": "cross_entropy", "over": "seen"}}


def images(shape=(3, 32, 32), count=3, seed=0):
    """Smooth noise with some grain, as photographs are."""
    rng = torch.Generator().manual_seed(seed)
    channels, *size = shape
    smooth = interpolate(torch.rand(count, channels, 5, 5, generator=rng), size, mode="bilinear")
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=rng)).clamp(0, 1).mul(255).byte()


def jpeg(**options):
    return Jpeg(JpegOptions(**options))


# what comes back


@settings(deadline=None)
@given(shape=SHAPES, quality=st.integers(1, 100), subsampling=st.sampled_from(["444", "422", "420"]))
def test_own_and_shared_tables_give_the_same_pixels(shape, quality, subsampling):
    own, shared = (jpeg(quality=quality, subsampling=subsampling, tables=tables) for tables in ("own", "shared"))
    pixels = images(shape)
    whole, scans = own.encode(pixels), shared.encode(pixels)
    header = header_of(shape, quality, subsampling)
    assert whole == [header + scan for scan in scans]
    assert (own.shared_bytes(shape), shared.shared_bytes(shape)) == (0, len(header))
    decoded = own.decode(whole, shape)
    assert (decoded.dtype, decoded.shape) == (torch.uint8, pixels.shape)
    assert torch.equal(decoded, shared.decode(scans, shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 37, 20)])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_another_decoder_reads_the_same_pixels(shape, subsampling):
    codec = jpeg(subsampling=subsampling)
    streams = codec.encode(images(shape))
    pillow = [np.atleast_3d(np.asarray(Image.open(io.BytesIO(stream)))) for stream in streams]
    assert torch.equal(codec.decode(streams, shape), torch.from_numpy(np.stack(pillow)).permute(0, 3, 1, 2))


def test_the_header_differs_between_sizes_in_height_and_width_alone():
    assert len({len(header_of((3, *size), 75, "444")) for size in ((1, 1), (32, 32), (256, 341))}) == 1


@pytest.mark.parametrize("tables", ["own", "shared"])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32)])
def test_more_quality_is_closer_and_takes_more_bytes(tables, shape):
    pixels, errors, sizes = images(shape, 8), [], []
    for quality in (10, 30, 50, 75, 90, 100):
        codec = jpeg(quality=quality, tables=tables)
        encoded = codec.encode(pixels)
        errors.append(float((codec.decode(encoded, shape).double() - pixels).square().mean()))
        sizes.append(sum(map(len, encoded)))
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)
    assert errors[-1] < 2


def test_images_of_other_colours_are_refused(tmp_path):
    data = {"use": "synthetic", "classes": 4, "channels": 4, "train_per_class": 16, "test_per_class": 8}
    recipe = SEEN | {"data": data, "memory": {"budget": "6 kB", "select": {"use": "random"}, "codec": {"use": "jpeg"}}}
    with pytest.raises(UserError) as refused:
        tiny_run(recipe, tmp_path)
    assert str(refused.value) == ("lwmfw 0.1.0: jpeg: JPEG has 1 or 3 channels, images have 4; choose another codec")


@pytest.mark.parametrize("wrong", [{"quality": 0}, {"quality": 101}, {"choose": [50, 0]}, {"tolerance": -0.1}])
def test_a_quality_is_1_to_100(wrong):
    with pytest.raises(ValidationError):
        JpegOptions(**wrong)


# what is refused


def claiming(height, width):
    """A JPEG of 32x32 pixels whose header claims other ones."""
    (stream,) = compress(images(count=1), 75, "444")
    header = header_of((3, 32, 32), 75, "444")
    return header_of((3, height, width), 75, "444") + stream[len(header) :]


def saved(mode="RGB", size=(32, 32), **options):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "JPEG", **options)
    return stream.getvalue()


TABLES = "has tables that are not those of its quality and colours"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (claiming(60000, 60000), "claims to be 60000x60000 pixels and should be 32x32"),
        (claiming(32, 33), "claims to be 32x33 pixels and should be 32x32"),
        (claiming(0, 0), "is no JPEG"),
        (saved(progressive=True), TABLES),
        (saved("CMYK"), TABLES),
        (saved("L"), TABLES),
        (saved(quality=30), TABLES),
        (b"", "is no JPEG"),
        (b"\xff\xd8", "is no JPEG"),
        (bytes(range(256)) * 4, "is no JPEG"),
    ],
    ids=["bomb", "wide", "empty", "progressive", "cmyk", "grey", "other quality", "nothing", "start", "garbage"],
)
def test_another_header_never_reaches_the_decoder(stream, reason, monkeypatch):
    codec = jpeg()
    (good,) = codec.encode(images(count=1))
    reached, decode = [], simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data, *a, **k: (reached.append(data), decode(data, *a, **k)))
    with pytest.raises(ValueError, match=r"^jpeg: exemplar 1 ") as refused:
        codec.decode([good, stream], (3, 32, 32))
    assert str(refused.value) == f"jpeg: exemplar 1 {reason}"
    assert reached == [good]


@pytest.mark.parametrize("tables", ["own", "shared"])
def test_an_image_cut_short_anywhere_is_refused(tables):
    codec = jpeg(tables=tables)
    (stream,) = codec.encode(images(count=1))
    for end in range(len(stream)):
        with pytest.raises(ValueError, match=r"^jpeg: exemplar 0 (is damaged: |is no JPEG$|has tables)"):
            codec.decode([stream[:end]], (3, 32, 32))


@settings(deadline=None)
@given(scan=st.binary(max_size=300), end=st.sampled_from([b"", b"\xff\xd9"]))
def test_an_image_of_garbage_is_refused_or_has_the_right_shape(scan, end):
    codec, reason = jpeg(tables="shared"), ""
    try:
        pixels = codec.decode([scan + end], (3, 32, 32))
    except ValueError as error:
        pixels, reason = torch.empty(1, 3, 32, 32), str(error)
    assert pixels.shape == (1, 3, 32, 32)
    assert not reason or (reason.startswith("jpeg: exemplar 0 is damaged: ") and "\n" not in reason)


def test_an_encoder_that_makes_other_headers_is_not_trusted(monkeypatch):
    encode = simplejpeg.encode_jpeg
    codec, pixels = jpeg(tables="shared"), images()
    codec.encode(pixels)
    monkeypatch.setattr(simplejpeg, "encode_jpeg", lambda *a, **k: encode(*a, **k).replace(b"JFIF", b"JFXX"))
    with pytest.raises(RuntimeError, match="headers that differ"):
        codec.encode(pixels)


# the volume of features


def unit(n, dimensions, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, dimensions, dtype=torch.float64, generator=rng))


@given(n=st.integers(1, 8), dimensions=st.integers(8, 12), seed=st.integers(0, 1000))
def test_the_volume_is_the_root_of_grams_determinant(n, dimensions, seed):
    features = unit(n, dimensions + 4, seed).numpy()
    sign, logarithm = np.linalg.slogdet(features @ features.T)
    assert sign == 1
    assert log_volume(torch.from_numpy(features)) == pytest.approx(logarithm / 2, abs=1e-4)


@given(seed=st.integers(0, 1000))
def test_beyond_the_dimension_the_volume_is_that_of_the_nonzero_singular_values(seed):
    features = unit(20, 4, seed)
    expected = np.log(np.linalg.svd(features.numpy(), compute_uv=False)).sum()
    assert log_volume(features) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "features",
    [unit(1, 6).repeat(5, 1), unit(3, 6).repeat(4, 1), torch.zeros(3, 6, dtype=torch.float64)],
    ids=["one image five times", "more than dimensions", "dead features"],
)
def test_the_volume_of_repeated_images_is_small_and_finite(features):
    assert torch.tensor(log_volume(features)).isfinite()
    assert log_volume(features) < log_volume(unit(*features.shape))


def test_the_change_of_volume_is_relative_and_a_mean_over_classes():
    classes = [unit(4, 8, seed) for seed in range(3)]
    others = [unit(4, 8, seed + 9) for seed in range(3)]
    before, after = (np.mean([log_volume(f) for f in features]) for features in (classes, others))
    assert volume_change(classes, others) == pytest.approx(abs(after / before - 1))
    assert volume_change(classes, classes) == 0


# whole runs


def memory(**codec):
    return SEEN | {
        "memory": {"budget": "6 kB", "select": {"use": "herding"}, "codec": {"use": "jpeg"} | codec},
        "readouts": [{"use": "cnn"}, {"use": "nme"}],
    }


@pytest.mark.parametrize(("tables", "header"), [("own", 0), ("shared", 623)])
def test_a_run_keeps_what_fits_into_its_bytes(tables, header, tmp_path):
    finished = tiny_run(memory(tables=tables), tmp_path)
    stored = finished.run.memory.exemplars
    last = finished.results.steps[-1]
    assert last.exemplars == len(stored)
    assert last.memory_bytes == sum(len(image.encoded) for image in stored) + header <= 6000
    assert (last.memory_bytes > 4500) or last.exemplars == 64


def test_shared_tables_make_room_for_more_exemplars(tmp_path):
    kept = {}
    for tables in ("own", "shared"):
        (tmp_path / tables).mkdir()
        kept[tables] = tiny_run(memory(tables=tables), tmp_path / tables).results.steps[-1].exemplars
    assert kept["shared"] > 4 * kept["own"]


@pytest.mark.parametrize(("tolerance", "quality"), [(1.0, 10), (0.0, 90)])
def test_the_smallest_quality_within_the_tolerance_is_chosen_else_the_highest(tolerance, quality, tmp_path):
    finished = tiny_run(memory(choose=[90, 10, 50], tolerance=tolerance), tmp_path)
    assert finished.run.assembly.components["jpeg"].instance.quality == quality
    assert [step.extra["jpeg"] for step in finished.results.steps] == [{"quality": quality}] * 2
    exemplars = finished.run.memory.images()
    labels = exemplars.labels.tolist()
    for label, stored in zip(labels, finished.run.memory.exemplars, strict=True):
        assert stored.encoded.startswith(header_of((3, 8, 8), quality, "444")), label


@pytest.mark.parametrize("tables", ["own", "shared"])
def test_photographs_of_any_size_share_a_header(tables, tmp_path):
    for label, number in itertools.product(range(4), range(8)):
        picture = noise(20 + 3 * number, 30, 10 * label + number)
        save(picture, tmp_path / "photographs" / str(label) / f"{number}.png")
    data = {"use": "folder", "root": str(tmp_path / "photographs"), "size": 16, "decode": "each epoch"}
    recipe = memory(tables=tables, choose=[30, 60], tolerance=1.0) | {"data": data}
    kept = tiny_run(recipe, tmp_path).run.memory
    assert len({(image.height, image.width) for image in kept.exemplars}) > 1
    header = header_of((3, 16, 16), 30, "444")
    shared = len(header) if tables == "shared" else 0
    assert kept.bytes == sum(len(image.encoded) + 4 for image in kept.exemplars) + shared <= 6000


def test_without_a_choice_nothing_is_said_of_it(tmp_path):
    assert all("jpeg" not in step.extra for step in tiny_run(memory(), tmp_path).results.steps)


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    class Stop:
        """Interrupts the second step."""

        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, step):
            if step.index == 2 and self.stops.pop():
                raise KeyboardInterrupt

    def two_steps(name, stops):
        (tmp_path / name).mkdir(exist_ok=True)
        Stop.stops = stops
        recipe = memory(choose=[20, 90], tolerance=1.0, tables="shared") | {"observers": [{"use": "stop"}]}
        return tiny_run(recipe, tmp_path / name, components=[Observer("stop", Stop)])

    whole = two_steps("whole", [False])
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        two_steps("halved", [True])
    resumed = two_steps("halved", [False])
    assert resumed.run.assembly.components["jpeg"].instance.quality == 20
    assert resumed.run.memory.exemplars == whole.run.memory.exemplars
    for name, value in whole.run.model.state_dict().items():
        assert torch.equal(value, resumed.run.model.state_dict()[name]), name
    assert [s.accuracy for s in resumed.results.steps] == [s.accuracy for s in whole.results.steps]
