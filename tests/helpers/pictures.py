"""Made image files, and small folders in the layouts of published sets."""

import io
import struct
import zlib
from pathlib import Path

import torch
from PIL import Image


def noise(width, height, seed=0):
    """A smooth random picture."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return Image.fromarray(fine[0].mul(255).byte().permute(1, 2, 0).contiguous().numpy())


def chunk(kind, content):
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def save(image, path, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return str(path)


def one_jpeg():
    """The bytes of a small picture, for sets where only the layout counts."""
    stream = io.BytesIO()
    noise(12, 10).save(stream, "JPEG")
    return stream.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def wnids(count):
    return [f"n{10_000_000 + 7 * i}" for i in range(count)]


def make_folder(root, classes=("cat", "dog"), count=5):
    for seed, name in enumerate(classes):
        for n in range(count):
            save(noise(30 + n, 24, seed), root / name / f"{n}.png")


def make_tiny_imagenet(root):
    """200 classes with 2 training images and 1 validation image each; the ids are not in alphabetical order."""
    folder, ids, jpeg = root / "tiny-imagenet-200", wnids(200)[::-1], one_jpeg()
    write_lines(folder / "wnids.txt", ids)
    write_lines(folder / "words.txt", [f"{wnid}\tthing {wnid}, other name" for wnid in sorted(ids)] + ["n00000001\tx"])
    for wnid in ids:
        for n in range(2):
            put(folder / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", jpeg)
        write_lines(folder / "train" / wnid / f"{wnid}_boxes.txt", [f"{wnid}_0.JPEG\t0\t0\t9\t9"])
    for n in range(200):
        put(folder / "val" / "images" / f"val_{n}.JPEG", jpeg)
    write_lines(folder / "val" / "val_annotations.txt", [f"val_{n}.JPEG\t{ids[n]}\t0\t0\t9\t9" for n in range(200)])


def make_imagenet(root):
    """1000 classes with one training and one validation image each."""
    jpeg = one_jpeg()
    for wnid in wnids(1000):
        put(root / "train" / wnid / f"{wnid}_1.JPEG", jpeg)
        put(root / "val" / wnid / f"ILSVRC2012_val_{wnid}.JPEG", jpeg)


def make_caltech101(root, count=31):
    folder, jpeg = root / "caltech101" / "101_ObjectCategories", one_jpeg()
    for name in ["BACKGROUND_Google", *(f"thing_{n:03}" for n in range(101))]:
        for n in range(1, count + 1):
            put(folder / name / f"image_{n:04}.jpg", jpeg)


def make_cub200(root):
    """200 classes with one training and one test image each."""
    folder, jpeg = root / "CUB_200_2011", one_jpeg()
    birds = [f"{n:03}.Made_up_Bird{n}" for n in range(1, 201)]
    files = [f"{bird}/{bird}_{n}.jpg" for bird in birds for n in (1, 2)]
    for name in files:
        put(folder / "images" / name, jpeg)
    write_lines(folder / "classes.txt", [f"{n} {bird}" for n, bird in enumerate(birds, 1)])
    write_lines(folder / "images.txt", [f"{n} {name}" for n, name in enumerate(files, 1)])
    write_lines(folder / "image_class_labels.txt", [f"{n} {(n + 1) // 2}" for n in range(1, 401)])
    write_lines(folder / "train_test_split.txt", [f"{n} {n % 2}" for n in range(1, 401)])


LAYOUTS = {
    "folder": make_folder,
    "tiny-imagenet": make_tiny_imagenet,
    "imagenet": make_imagenet,
    "caltech101": make_caltech101,
    "cub200": make_cub200,
}
