"""Files that are odd: broken metadata, every orientation in every format, and more pixels than are allowed."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from helpers.pictures import chunk, noise, save
from PIL import Image

from lwmfw import ImageFiles, UserError, unreadable_images
from lwmfw.data.decoding import View, encoded_files
from lwmfw.data.pixels import Reading
from lwmfw.recipe.catalogue import discover

RAMP = np.arange(256, dtype="u1").reshape(16, 16)


def refusal(path, **reading):
    return unreadable_images([str(path)], **reading)[str(path)]


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


class Raw:
    """A codec that keeps the pixels."""

    def encode(self, pixels):
        return [each.numpy().tobytes() for each in pixels]


def exemplar(path, **reading):
    (kept,) = encoded_files(ImageFiles([str(path)], torch.zeros(1).long(), 8, 16, **reading), Raw())
    return torch.frombuffer(bytearray(kept.encoded), dtype=torch.uint8).view(3, kept.height, kept.width)


# metadata


def with_chunks(*extra, after=False):
    """A PNG of RAMP with more chunks."""
    raw = encoded(Image.fromarray(RAMP), "PNG")
    place = -12 if after else 33
    return raw[:place] + b"".join(extra) + raw[place:]


def jpeg(exif):
    raw = encoded(Image.fromarray(RAMP), "JPEG", quality=100)
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:]


def webp(exif):
    return encoded(Image.fromarray(RAMP).convert("RGB"), "WEBP", exif=exif, lossless=True)


LARGE = zlib.compress(b"x" * 2_000_000)
BROKEN = {
    "empty": b"",
    "text": b"b'Exif\\x00\\x00MM'",
    "short": b"II*\0",
    "offset": b"MM\0*\xff\xff\xff\xf0",
    "count": b"MM\0*\0\0\0\x08\0\xff" + b"\1" * 30,
}
METADATA = {
    **{f"jpeg {name}": lambda exif=exif: jpeg(b"Exif\0\0" + exif) for name, exif in BROKEN.items()},
    **{f"webp {name}": lambda exif=exif: webp(b"Exif\0\0" + exif) for name, exif in BROKEN.items()},
    **{f"png {name}": lambda exif=exif: with_chunks(chunk(b"eXIf", exif)) for name, exif in BROKEN.items()},
    "a profile that is no hex": lambda: with_chunks(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  8\nzz-not-hex\n"))
    ),
    "a short profile": lambda: with_chunks(chunk(b"tEXt", b"Raw profile type exif\0\n\nexif")),
    "a large text": lambda: with_chunks(chunk(b"zTXt", b"Comment\0\0" + LARGE)),
    "a large text behind": lambda: with_chunks(chunk(b"zTXt", b"Comment\0\0" + LARGE), after=True),
    "a large international text": lambda: with_chunks(chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE)),
    "a large colour profile": lambda: with_chunks(chunk(b"iCCP", b"icc\0\0" + LARGE)),
    "an unknown compression": lambda: with_chunks(chunk(b"iCCP", b"icc\0\7" + LARGE)),
    "a wrong checksum": lambda: with_chunks(chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
    "a short resolution": lambda: with_chunks(chunk(b"pHYs", b"a")),
}


@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_never_decide_whether_pixels_count(tmp_path, metadata):
    path = tmp_path / "a"
    path.write_bytes(METADATA[metadata]())
    pixels = View(16, 16).show(str(path), 0)
    assert np.abs(pixels.numpy().astype(int) - RAMP).max() <= 3
    assert torch.equal(exemplar(path), pixels)


def test_a_png_keeps_its_orientation_when_its_texts_are_dropped(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(chunk(b"zTXt", b"Comment\0\0" + LARGE), chunk(b"eXIf", exif.tobytes()[6:])))
    assert np.array_equal(exemplar(path)[0].numpy(), RAMP[::-1, ::-1])


OPTIONS = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exemplars_are_upright_whole_and_turned_once(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = noise(24, 12)
    path = save(image, tmp_path / f"a.{suffix}", exif=exif, **OPTIONS.get(suffix, {}))
    kept = exemplar(path)
    turns = {2: [2], 3: [1, 2], 4: [1], 5: "t", 6: "t2", 7: "t12", 8: "t1"}
    usual = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    turn = turns.get(orientation, [])
    usual = usual.transpose(1, 2) if "t" in turn else usual
    usual = usual.flip([int(axis) for axis in turn if axis != "t"])
    assert kept.shape == usual.shape
    assert (kept.int() - usual.int()).abs().float().mean() < 2


# the limit


@pytest.mark.parametrize("size", [(90, 70), (91, 73)])
def test_a_jpeg_above_the_limit_is_decoded_at_a_fraction(tmp_path, size):
    path = save(noise(*size), tmp_path / "a.jpg", quality=95)
    usual = View(8, 8).show(path, 0)
    for fraction in (2, 4, 8):
        limit = -(-size[0] // fraction) * -(-size[1] // fraction)
        assert unreadable_images([path], max_pixels=limit) == {}
        seen = View(8, 8, reading=Reading(max_pixels=limit)).show(path, 0)
        assert (seen.int() - usual.int()).abs().float().mean() < 6
        View(64, None, reading=Reading(max_pixels=limit)).show(path, 1)
        assert exemplar(path, max_pixels=limit).shape[0] == 3
    assert (
        refusal(path, max_pixels=limit - 1) == f"{size[0]} x {size[1]} pixels, more than data.max_pixels = {limit - 1}"
    )


def test_another_file_above_the_limit_is_refused_by_the_option_s_name(tmp_path):
    path = save(noise(40, 30), tmp_path / "a.png")
    assert refusal(path, max_pixels=1199) == "more pixels than data.max_pixels = 1199"
    assert unreadable_images([path], max_pixels=1200) == {}
    before = Image.MAX_IMAGE_PIXELS
    assert "max_pixels" in refusal(path, max_pixels=500)
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_of_a_folder_is_an_option(tmp_path):
    for name in "ab":
        for n in range(2):
            save(noise(40, 30, n), tmp_path / name / f"{n}.png")
    component = discover().find("data", "folder")

    def load(limit):
        return component.factory(component.options(root=str(tmp_path), decode="once", max_pixels=limit)).load()

    with pytest.raises(UserError, match=re.escape("more pixels than data.max_pixels = 1000")):
        load(1000)
    assert len(load(1200).train) == 2
