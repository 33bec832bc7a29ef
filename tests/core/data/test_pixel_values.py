"""What the pixels of a file become: by its depth and its set, on a background, upright, whatever its metadata say."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from helpers.pictures import noise, save
from PIL import Image

import lwmfw
from lwmfw import ImageFiles, UserError, decode_images, unreadable_images
from lwmfw.data.decoding import View, encoded_files
from lwmfw.data.loader import Preprocessing
from lwmfw.data.pixels import Reading, Span, own_range
from lwmfw.engine.origin import preprocessing_of
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import tiny_run
from lwmfw.using.extend import folder_table
from lwmfw.using.predict import image_files

SIDE = 16
RAMP = np.arange(256).reshape(SIDE, SIDE)
"""Every value that a picture can have."""


def shown(path, **reading):
    return View(SIDE, SIDE, reading=Reading(**reading)).show(str(path), 0)


def grey(path, **reading):
    """The pixels of a grey file that has the size it is shown in."""
    red, green, blue = shown(path, **reading)
    assert torch.equal(red, green)
    assert torch.equal(red, blue)
    return red.numpy()


def refusal(path, **reading):
    return unreadable_images([str(path)], **reading)[str(path)]


def load(root, **options):
    component = discover().find("data", "folder")
    return component.factory(component.options(root=str(root), size=SIDE, **options)).load()


def deep_folder(root, values, classes="ab", count=4, suffix="tif"):
    """A folder whose images have values between 0 and the given array's."""
    for name in classes:
        for n in range(count):
            share = (n + 1) / count
            save(Image.fromarray((values * share).astype(values.dtype)), root / name / f"{n}.{suffix}")


# depths


def tiff(bits, form, values, *tags):
    """A TIFF of grey values in so many bits; form 1: integers, 2: signed ones, 3: floats."""
    raw, (height, width) = values.tobytes(), values.shape
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(raw), 339: form}
    entries = sorted((fields | dict(tags)).items())
    table = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries)
    directory = struct.pack("<H", len(entries)) + table + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + directory


def pgm(largest, values):
    return b"P5 %d %d %d\n" % (*values.shape, largest) + values.astype(">u2").tobytes()


def ramp(top, dtype):
    return (RAMP / 255 * top).round().astype(dtype)


def png16(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


DEPTHS = {
    "16 bits": lambda: tiff(16, 1, ramp(65535, "<u2")),
    "12 bits in 16": lambda: tiff(16, 1, ramp(4095, "<u2")),
    "14 bits in 16": lambda: tiff(16, 1, ramp(16383, "<u2")),
    "8 bits in 16": lambda: tiff(16, 1, ramp(255, "<u2")),
    "10 bits by a tag": lambda: tiff(16, 1, ramp(1023, "<u2"), (281, 1023)),
    "15 bits": lambda: tiff(16, 2, ramp(32767, "<i2")),
    "12 bits in 15": lambda: tiff(16, 2, ramp(4095, "<i2")),
    "31 bits": lambda: tiff(32, 2, ramp(2**31 - 1, "<i4")),
    "8 bits in 31": lambda: tiff(32, 2, ramp(255, "<i4")),
    "16 bits in 31": lambda: tiff(32, 2, ramp(65535, "<i4")),
    "32 bits": lambda: tiff(32, 1, ramp(2**32 - 1, "<u4")),
    "8 bits in 32": lambda: tiff(32, 1, ramp(255, "<u4")),
    "floats to 1": lambda: tiff(32, 3, (RAMP / 255).astype("<f4")),
    "floats to 255": lambda: tiff(32, 3, RAMP.astype("<f4")),
    "a PNG": lambda: png16(ramp(65535, "u2")),
    "a PNG of 8 bits in 16": lambda: png16(ramp(255, "u2")),
    "a PGM": lambda: pgm(65535, ramp(65535, "u2")),
    "a PGM of 12 bits": lambda: pgm(4095, ramp(4095, "u2")),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_file_of_any_depth_has_the_whole_range_from_black_to_white(tmp_path, depth):
    path = tmp_path / "a.tif"
    path.write_bytes(DEPTHS[depth]())
    assert np.abs(grey(path).astype(int) - RAMP).max() <= 1
    assert unreadable_images([str(path)]) == {}


def test_eight_bits_stay_as_they_are_however_dark(tmp_path):
    path = save(Image.fromarray((RAMP // 64).astype("uint8")), tmp_path / "a.png")
    assert np.array_equal(grey(path, values=(0.0, 65535.0)), RAMP // 64)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([[0, 0.5], [300, 1]], "floats from 0 to 300, neither 0..1 nor 0..255"),
        ([[-1, 0.5], [1, 1]], "floats from -1 to 1, neither 0..1 nor 0..255"),
        ([[np.nan, 0.5], [1, 1]], "values from nan to nan, which are no picture"),
        ([[1, 0.5], [np.nan, 1]], "values from nan to nan, which are no picture"),
        ([[0, np.inf], [0, 1]], "values from 0 to inf, which are no picture"),
    ],
)
def test_floats_of_another_range_are_refused_with_the_range(tmp_path, values, told):
    path = save(Image.fromarray(np.array(values, "f4")), tmp_path / "a.tif")
    assert refusal(path).startswith(told)


def test_negative_integers_are_refused_unless_the_range_is_given(tmp_path):
    path = save(Image.fromarray(np.array([[-1000, 0], [500, 1000]], "i4")), tmp_path / "a.tif")
    assert refusal(path).startswith("integers from -1000 to 1000, not within 0..2147483647; data.values says which")
    assert unreadable_images([path], values=[-1000, 1000]) == {}
    assert "values from -1000 to 1000, outside data.values = [0, 900]" in refusal(path, values=[0, 900])
    view = View(2, 2, reading=Reading(values=(-1000.0, 1000.0)))
    assert view.show(path, 0)[0].tolist() == [[0, 128], [191, 255]]


@pytest.mark.parametrize(("high", "white"), [(255, 255), (256, 1023), (4095, 4095), (16383, 16383), (16384, 65535)])
def test_empty_bits_of_integers_are_told_by_the_largest(high, white):
    assert own_range(Span(65535, 0, high)) == (0, white)


# one scale for a set


@pytest.mark.parametrize("decode", ["once", "each epoch"])
def test_a_set_has_one_scale_which_its_darkest_files_keep(tmp_path, decode):
    deep_folder(tmp_path, ramp(4000, "u2"))
    data = load(tmp_path, decode=decode, flip=False)
    assert Preprocessing.of(data).values == [0, 4095]
    parts = [part if decode == "once" else decode_images(part) for part in (data.train, data.test)]
    brightest = sorted(torch.cat([part.pixels.amax((1, 2, 3)) for part in parts]).tolist())
    assert brightest == pytest.approx([62, 62, 125, 125, 187, 187, 249, 249], abs=15)


@pytest.mark.parametrize("top", [1, 0.25, 255, 60])
def test_floats_are_scaled_by_the_range_of_their_set(tmp_path, top):
    deep_folder(tmp_path, ((RAMP + 1) / 256 * top).astype("f4"))
    assert Preprocessing.of(load(tmp_path)).values == [0, 1 if top <= 1 else 255]


def test_files_that_need_two_scales_are_refused_with_both(tmp_path):
    deep_folder(tmp_path, ramp(65535, "u2"), classes="a")
    deep_folder(tmp_path, (RAMP / 255).astype("f4"), classes="b")
    with pytest.raises(UserError, match=r"values of 0\.\.65535 \(.*\) and 0\.\.1 \(.*\); convert them"):
        load(tmp_path)


def test_files_of_eight_bits_need_no_scale(tmp_path):
    deep_folder(tmp_path, RAMP.astype("u1"))
    assert Preprocessing.of(load(tmp_path)).values == []


@pytest.mark.parametrize("values", [[1], [2, 1], [0, float("inf")], [0, 1, 2]])
def test_an_impossible_range_is_refused(tmp_path, values):
    component = discover().find("data", "folder")
    with pytest.raises(ValueError, match="values"):
        component.options(root=str(tmp_path), values=values)


def test_a_set_of_single_values_says_so(tmp_path, capsys):
    deep_folder(tmp_path / "flat", np.full((SIDE, SIDE), 8, "u1"))
    load(tmp_path / "flat")
    told = "data: every image is of one single value; look at the files, and at data.values\n"
    assert capsys.readouterr().err == told
    save(noise(20, 20), tmp_path / "flat" / "b" / "other.png")
    load(tmp_path / "flat")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("decode", ["once", "each epoch"])
def test_what_a_run_has_learned_to_see_is_carried_to_predictions_and_extensions(tmp_path, decode):
    root = tmp_path / "pictures"
    deep_folder(root, ramp(4000, "u2"), classes="abcd")
    data = {"use": "folder", "root": str(root), "size": SIDE, "decode": decode}
    run = tiny_run({"data": data | {"background": "#102030", "max_pixels": 5000}}, tmp_path)
    opened = lwmfw.open_run(run.path)
    kept = opened.checkpoint()
    shape = preprocessing_of(kept)
    assert (shape.background, shape.values, shape.max_pixels) == ("#102030", [0, 4095], 5000)
    path = str(root / "a" / "1.tif")
    files = image_files([path], shape)
    assert files.reading == Reading("#102030", (0.0, 4095.0), 5000)
    assert decode_images(files).pixels.max() == pytest.approx(2000 * 255 / 4095, abs=10)
    table = folder_table(kept, root)
    assert {key: table[key] for key in ("background", "values", "max_pixels")} == {
        "background": "#102030",
        "values": [0, 4095],
        "max_pixels": 5000,
    }


# transparency


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, kind, row, transparency, *extra):
    """A PNG of SIDE equal rows."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * SIDE)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"tRNS", transparency), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def drawing():
    """Black on a transparent ground that is black underneath: the left half is drawn."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, SIDE // 2, SIDE))
    return image


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def of_palette():
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0] * 256)
    image.paste(0, (0, 0, SIDE // 2, SIDE))
    return image


HALF = SIDE // 2
TRANSPARENT = {
    "RGBA": lambda: encoded(drawing(), "PNG"),
    "LA": lambda: encoded(drawing().convert("LA"), "PNG"),
    "P": lambda: encoded(of_palette(), "PNG", transparency=1),
    "P with shares": lambda: encoded(of_palette(), "PNG", transparency=b"\xff\0"),
    "gif": lambda: encoded(of_palette(), "GIF", transparency=1),
    "webp": lambda: encoded(drawing(), "WEBP", lossless=True, exact=True),
    "tiff": lambda: encoded(drawing(), "TIFF"),
    "L and tRNS": lambda: png(8, 0, b"\0" * HALF + b"\1" * HALF, b"\0\1"),
    "1 and tRNS": lambda: png(1, 0, b"\0\xff", b"\0\1"),
    "2 bits and tRNS": lambda: png(2, 0, b"\0\0\xaa\xaa", b"\0\2"),
    "16 bits and tRNS": lambda: png(16, 0, b"\0" * SIDE + b"\x01\x02" * HALF, b"\x01\x02"),
    "RGB and tRNS": lambda: png(8, 2, b"\0" * 3 * HALF + b"\1\2\3" * HALF, b"\0\1\0\2\0\3"),
    "RGB of 16 bits and tRNS": lambda: png(16, 2, b"\0" * 6 * HALF + b"\x01\x02" * 3 * HALF, b"\x01\x02" * 3),
}


class Raw:
    """A codec that keeps the pixels."""

    def encode(self, pixels):
        return [each.numpy().tobytes() for each in pixels]


def exemplar(path, channels=3, **reading):
    (kept,) = encoded_files(ImageFiles([str(path)], torch.zeros(1).long(), 8, SIDE, None, channels, **reading), Raw())
    return torch.frombuffer(bytearray(kept.encoded), dtype=torch.uint8).view(channels, kept.height, kept.width)


READERS = {
    "evaluation": lambda path, c, **r: View(SIDE, SIDE, channels=c, reading=Reading(**r)).show(str(path), 0),
    "exemplar": exemplar,
    "once": lambda path, c, **r: decode_images(
        ImageFiles([str(path)], torch.zeros(1).long(), SIDE, SIDE, None, c, **r)
    ).pixels[0],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", TRANSPARENT)
def test_what_is_transparent_shows_the_background(tmp_path, kind, reader):
    path = tmp_path / "a"
    path.write_bytes(TRANSPARENT[kind]())
    for channels in (1, 3):
        pixels = READERS[reader](path, channels)
        assert pixels[:, :, :HALF].eq(0).all()
        assert pixels[:, :, HALF:].eq(255).all()
    pixels = READERS[reader](path, 3, background="#102030")
    assert pixels[:, 0, -1].tolist() == [16, 32, 48]
    assert pixels[:, 0, 0].tolist() == [0, 0, 0]


def test_training_sees_the_background_too(tmp_path):
    path = save(drawing(), tmp_path / "a.png")
    views = torch.stack([View(SIDE, None).show(path, seed) for seed in range(20)])
    assert views.float().mean().item() == pytest.approx(127, abs=40)


def test_the_background_comes_before_resizing(tmp_path):
    """White under a transparent ground would bleed into the edge of what is drawn."""
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 30, 64))
    red, green, blue = shown(save(image, tmp_path / "a.png"))
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def test_half_transparent_is_half_of_the_background(tmp_path):
    path = save(Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128)), tmp_path / "a.png")
    assert np.abs(grey(path).astype(int) - 127).max() <= 1


def test_an_unknown_colour_is_refused(tmp_path):
    with pytest.raises(ValueError, match="background"):
        discover().find("data", "folder").options(root=str(tmp_path), background="no colour")


def test_how_files_are_read_goes_to_workers():
    view = View(8, 8, reading=Reading("black", (0.0, 1.0), 7))
    assert pickle.loads(pickle.dumps(view)).reading == view.reading  # noqa: S301
