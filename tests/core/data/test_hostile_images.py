"""Image files that mean harm: what they claim is held against their bytes before anything is allocated for it.

`MUTATIONS=10000 pytest -m slow tests/core/data/test_hostile_images.py -s` says what the slow one measures.
"""

import io
import os
import random
import struct
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from helpers.growth import Taken
from helpers.pictures import chunk, noise
from PIL import Image

from lwmfw import unreadable_images
from lwmfw.data.decoding import View
from lwmfw.data.listing import FORMATS
from lwmfw.data.pixels import span

MUTATIONS = int(os.environ.get("MUTATIONS", "10000"))
PAD = b"\xff\xfe\xff\xff" + bytes(65533)
"""A comment of a JPEG that makes it larger."""


def encoded(form, image=noise(64, 64), **options):  # noqa: B008
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


PLAIN, PROGRESSIVE = encoded("JPEG"), encoded("JPEG", progressive=True)


def claiming(jpeg, width, height, precision=8):
    """A JPEG whose header says another size."""
    place = 2
    while jpeg[place + 1] not in (0xC0, 0xC2):
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4])
    return jpeg[: place + 4] + struct.pack(">BHH", precision, height, width) + jpeg[place + 9 :]


def padded(jpeg, size):
    return jpeg[:2] + PAD * (size // len(PAD) + 1) + jpeg[2:]


def png(width, height, depth=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x\x9c\3\0\0\0\0\1") + chunk(b"IEND", b"")


def many_scans(count, side=2048):
    """A small file that has its decoder go over millions of blocks again and again."""
    jpeg = encoded("JPEG", Image.new("L", (side, side)), progressive=True)
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def several_scans(jpeg):
    """A sequential JPEG whose first scan has one of its colours."""
    place = jpeg.index(b"\xff\xda")
    return jpeg[:place] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + jpeg[place + 14 : -2] + jpeg[place:]


def resized(raw, where, form, *size):
    return raw[:where] + struct.pack(form, *size) + raw[where + struct.calcsize(form) :]


HOSTILE = {
    **{f"jpeg {w} x {h}": claiming(PLAIN, w, h) for w, h in ((60_000, 60_000), (65_535, 65_535), (9000, 9000))},
    **{f"jpeg {w} x {h}": claiming(PLAIN, w, h) for w, h in ((0, 0), (0, 64), (64, 0))},
    **{f"progressive {side}": claiming(PROGRESSIVE, side, side) for side in (9000, 20_000, 60_000)},
    "progressive, large, of as many bytes": padded(claiming(PROGRESSIVE, 20_000, 20_000), 800_000),
    "several scans, large, of as many bytes": padded(several_scans(claiming(PLAIN, 20_000, 20_000)), 800_000),
    "5000 scans": many_scans(5000),
    "5000 scans of 12 bits": claiming(many_scans(5000), 2048, 2048, precision=12),
    "12 bits": claiming(PLAIN, 64, 64, precision=12),
    "jpeg, half": PLAIN[: len(PLAIN) // 2],
    "jpeg, header alone": PLAIN[: PLAIN.index(b"\xff\xda")],
    "jpeg, garbage": PLAIN[:300] + random.Random(1).randbytes(3000),
    **{
        f"png {w} x {h}": png(w, h)
        for w, h in ((60_000, 60_000), (9459, 9459), (2**31 - 1, 1), (1, 89_478_485), (0, 0))
    },
    "png of 16 bits": png(9000, 9000, depth=16),
    "png, half": encoded("PNG")[:3000],
    "gif": resized(encoded("GIF", noise(64, 64).convert("P")), 6, "<HH", 65_535, 65_535),
    "webp": resized(encoded("WEBP"), 26, "<HH", 16_383, 16_383),
    "webp without loss": resized(encoded("WEBP", lossless=True), 21, "<I", 16_383 | 16_383 << 14),
    "bmp": resized(encoded("BMP"), 18, "<ii", 60_000, 60_000),
    "tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 60_000, 60_000, 24, 0),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "ppm within the limit": b"P6 9000 9000 255\n" + bytes(100),
    "jpeg 2000": resized(
        encoded("JPEG2000"), encoded("JPEG2000").index(b"\xff\x51") + 6, ">II", 60_000, 60_000
    ).replace(struct.pack(">II", 64, 64), struct.pack(">II", 60_000, 60_000), 1),
    "random bytes": random.Random(2).randbytes(5000),
    "nothing": b"",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(canary) (w) file\n",
    "FITS": b"".join(f"{line:80}".encode() for line in ("SIMPLE  = T", "NAXIS   = 2", "NAXIS1  = 60000", "END")),
    "Photoshop": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 60_000, 60_000, 8, 3) + bytes(40),
}


def tiff(side, **options):
    raw = bytearray(encoded("TIFF", **options))
    first = struct.unpack_from("<I", raw, 4)[0]
    for entry in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", raw, first)[0], 12):
        if struct.unpack_from("<H", raw, entry)[0] in (256, 257, 278):  # width, height, rows of a strip
            struct.pack_into("<HII", raw, entry + 2, 4, 1, side)
    return bytes(raw)


for _kind in ("raw", "tiff_deflate", "tiff_lzw", "packbits"):
    HOSTILE[f"tiff {_kind}"] = tiff(60_000, compression=_kind)


def shown(path):
    """Why a file cannot be shown; None: it can. With the seconds that took."""
    begun = time.perf_counter()
    try:
        View(8, 8).show(str(path), 0)
        reason = None
    except Exception as error:
        reason = str(error) or type(error).__name__
    return reason, time.perf_counter() - begun


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_at_once_and_before_memory_is_taken(case, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("PNG"))
    shown(path)  # Pillow has loaded what it needs
    path.write_bytes(HOSTILE[case])
    with Taken() as taken:
        tried = [shown(path) for _ in range(3)]
    reason, seconds = min(tried, key=lambda each: each[1])  # a busy machine takes longer
    assert reason
    assert seconds < 0.05
    assert taken.peak < 50
    assert list(unreadable_images([str(path)])) == [str(path)]
    assert span(str(path), 89_478_485) is None


def test_what_is_refused_is_told_with_what_it_claims(tmp_path):
    path = tmp_path / "a.jpg"
    for case, words in {
        "progressive 60000": "claims 60000 x 60000 pixels, which ",
        "png 1 x 89478485": "claims 1 x 89478485 pixels, which ",
        "5000 scans": "has 5005 scans, and 100 are read at most",
        "progressive, large, of as many bytes": "20000 x 20000 pixels in several scans, decoded whole: more than",
        "several scans, large, of as many bytes": "20000 x 20000 pixels in several scans, decoded whole: more than",
        "PostScript": "no image of a known format",
    }.items():
        path.write_bytes(HOSTILE[case])
        assert words in unreadable_images([str(path)])[str(path)]


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True, "progressive": True, "quality": 1}, {"quality": 100}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_emptiest_jpeg_has_bytes_enough_for_its_pixels(mode, options, tmp_path):
    """One of a single colour, which compresses best, is read."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG", Image.new(mode, (1500, 1100)), **options))
    assert shown(path)[0] is None


def test_the_emptiest_png_has_bytes_enough_for_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    for mode, size in (("1", (2000, 1500)), ("L", (1, 5000)), ("RGBA", (1500, 1000)), ("I;16", (5000, 1))):
        path.write_bytes(encoded("PNG", Image.new(mode, size), optimize=True))
        assert "claims" not in (shown(path)[0] or "")


def test_scans_are_counted_behind_what_only_looks_like_one(tmp_path):
    """A thumbnail and a second picture are no scans of the first."""
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(PLAIN) + 2) + PLAIN
    path = tmp_path / "a.jpg"
    path.write_bytes(PLAIN[:2] + thumbnail + PLAIN[2:] + PLAIN)
    assert unreadable_images([str(path)], max_pixels=1024) == {}
    path.write_bytes(PLAIN[:2] + thumbnail + PROGRESSIVE[2:] + PLAIN)
    assert "in several scans" in unreadable_images([str(path)], max_pixels=1024)[str(path)]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    paths = [str(tmp_path / "a.jpg"), "/dev/zero"]
    assert unreadable_images(paths) == dict.fromkeys(paths, "is no regular file")


def test_cmyk_is_read_and_every_known_format_is_one_of_pillow_s_or_its_plug_ins():
    Image.init()
    assert {"JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"} <= set(FORMATS) & set(Image.OPEN)
    assert not {"EPS", "FITS", "PSD", "WMF", "FPX", "MIC", "MCIDAS", "IPTC", "PDF"} & set(FORMATS)


# mutations

SEEDS = [
    PLAIN, PROGRESSIVE, encoded("JPEG", noise(64, 64).convert("L")), encoded("JPEG", noise(64, 64).convert("CMYK")),
    encoded("JPEG", subsampling=2), encoded("PNG"), encoded("GIF", noise(64, 64).convert("P")), encoded("WEBP"),
    encoded("TIFF", compression="tiff_lzw"), encoded("TIFF"), encoded("BMP"), encoded("JPEG2000"),
]  # fmt: skip


def mutated(draw):
    """One of the seeds with bytes changed, cut out, doubled or put from another."""
    raw = bytearray(draw.choice(SEEDS))
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place, length = draw.randrange(len(raw) or 1), draw.choice((1, 2, 4, 50))
        match draw.randrange(5):
            case 0:
                raw[place : place + length] = draw.randbytes(length)
            case 1:
                raw[place : place + length] = b""
            case 2:
                raw[place:place] = raw[place : place + length]
            case 3:
                raw[place : place + length] = draw.choice((b"\0", b"\xff")) * length
            case 4:
                other = draw.choice(SEEDS)
                raw[place : place + length] = other[place : place + length]
    return bytes(raw[: draw.randrange(len(raw))] if draw.random() < 0.05 and raw else raw)


def attack(folder, count, seed, told):
    """Show mutations in a process of its own, which may die of them; send how many, the slowest and the growth."""
    draw, path, slowest, read = random.Random(seed), Path(folder) / "a.jpg", 0.0, 0
    path.write_bytes(PLAIN)
    for raw in SEEDS:
        path.write_bytes(raw)
        shown(path)
    with Taken() as taken:
        for _ in range(count):
            path.write_bytes(mutated(draw))
            reason, seconds = shown(path)
            read += reason is None
            slowest = max(slowest, seconds)
    told.send((count, read, slowest, taken.kept, taken.peak))


def attacked(folder, count, seed=0):
    ours, theirs = get_context("fork").Pipe()
    process = get_context("fork").Process(target=attack, args=(folder, count, seed, theirs))
    process.start()
    theirs.close()
    said = ours.recv() if ours.poll(900) else None
    process.join()
    assert (process.exitcode, said is None) == (0, False)
    return said


def test_mutations_are_shown_or_refused(tmp_path):
    count, read, _, _, most = attacked(tmp_path, 60)
    assert 0 < read < count
    assert most < 500


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_many_mutations_are_shown_or_refused_in_bounded_time_and_memory(tmp_path):
    count, read, slowest, kept, most = attacked(tmp_path, MUTATIONS, seed=1)
    print(f"\n{count} mutations: {read} shown, slowest {slowest:.3f} s, kept {kept:.0f} MiB, at most {most:.0f} MiB")
    assert kept < 50
