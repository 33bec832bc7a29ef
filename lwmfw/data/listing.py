"""Which files are images, and which folders are looked into; imports no torch."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lwmfw.errors import UserError, shown

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
    }
)
"""Of files that are taken for images whatever they hold; others are images if they hold one."""

JUNK = frozenset(
    {
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),  # NAS
        *("$recycle.bin", "recycler", "system volume information", "found.000"),  # Windows
        *("__macosx", "lost+found", "__pycache__", "thumbs", "thumbnails"),
    }
)
"""What systems leave in folders of images, in lower case: folders of copies, of thumbnails and of deleted files."""

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "PNG", "PPM", "QOI", "SGI", "TIFF", "WEBP")
"""Pillow's names of those that are known by their first bytes."""

NEEDED = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif"),
    **dict.fromkeys((".avif", ".avifs"), "pillow-avif-plugin"),
    ".jxl": "pillow-jxl-plugin",
}
"""Suffix -> the plug-in by which any Pillow reads such files."""

NO_IMAGES = frozenset(
    {
        *(".part", ".partial", ".crdownload", ".download", ".tmp", ".bak"),  # of downloads that did not end, and copies
        *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"),  # cameras' raw data
    }
)
"""Of files that begin as an image does and are none: Pillow would show their thumbnail, or half of them."""

DOCUMENTS = frozenset(
    {
        *(".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".toml", ".html", ".log", ".py"),
        *(".db", ".ini", ".lnk", ".url"),  # Thumbs.db, desktop.ini
    }
)
"""Of files beside images that nobody misses: they are not counted where they hold no image."""


def images_below(folder: Path, left_out: Counter[str] | None = None) -> list[str]:
    """The images in a folder and its sub-folders, sorted.

    A file is an image by its suffix, or else by its content. Hidden ones, links to folders, and folders that systems
    leave are passed over.

    Args:
        folder: may have any name.
        left_out: counts what is passed over, by suffix, and by name and "/" for folders; without hidden files, except
            a Mac's "._" ones, and documents.

    Raises:
        UserError: a folder cannot be read.
    """
    counts: Counter[str] = Counter() if left_out is None else left_out
    found = []
    for path, inside, files in os.walk(folder, onerror=_refuse):
        inside[:] = [name for name in inside if _looked_into(name, counts)]
        counts.update("links to folders" for name in inside if os.path.islink(os.path.join(path, name)))
        found += [os.path.join(path, name) for name in files if _is_image(path, name, counts)]
    return sorted(found)


def folders_in(folder: Path, left_out: Counter[str] | None = None) -> list[str]:
    """The folders directly in a folder, links to folders too, in natural order: 2 before 10.

    Hidden ones and those that systems leave are passed over, as images are that lie beside the folders.

    Args:
        folder: may have any name.
        left_out: counts these, as `images_below` does.

    Raises:
        UserError: the folder cannot be read.
    """
    counts: Counter[str] = Counter() if left_out is None else left_out
    path, inside, files = next(os.walk(folder, onerror=_refuse))
    found = [name for name in inside if _looked_into(name, counts)]
    counts.update(f"{suffix} in no class" for suffix in map(_suffix, files) if suffix in IMAGE_SUFFIXES)
    return [os.path.join(path, name) for name in sorted(found, key=_natural)]


def left_out_words(counts: Mapping[str, int]) -> str:
    """What was passed over, as messages list it: 2 .mp4, 1 @eaDir/; empty: nothing was."""
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); make it readable or remove it")


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts names by the numbers in them; "01" and "1" by their text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _suffix(name: str) -> str:
    return "" if name.startswith(".") else os.path.splitext(name)[1].lower()


def _looked_into(name: str, counts: Counter[str]) -> bool:
    junk = name.strip().casefold() in JUNK
    counts.update([f"{shown(name)}/"] * junk)
    return not junk and not name.startswith(".")


def _is_image(folder: str, name: str, counts: Counter[str]) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        counts.update([f"hidden {suffix}"] * (name.startswith("._") and suffix in IMAGE_SUFFIXES))
        return False
    if suffix in IMAGE_SUFFIXES or _holds_one(os.path.join(folder, name), suffix):
        return True
    if suffix in DOCUMENTS:
        return False
    known = suffix if re.fullmatch(r"\.\w{1,12}~?", suffix) else "without suffix"
    counts[f"{known} (needs {NEEDED[suffix]}, registered with Pillow)" if suffix in NEEDED else known] += 1
    return False


def _holds_one(path: str, suffix: str) -> bool:
    """Whether Pillow opens a file; its pixels are not looked at."""
    if suffix in NO_IMAGES or suffix.endswith("~") or not os.path.isfile(path):
        return False
    from PIL import Image

    Image.init()
    if suffix in NEEDED and suffix in Image.registered_extensions():
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open(path, "rb") as stream, Image.open(stream, formats=[f for f in FORMATS if f in Image.OPEN]):
                return True
        except Image.DecompressionBombError:  # one it is; whether it is too large is said where it is decoded
            return True
        except Exception:  # of any kind, as Pillow raises for what it does not know
            return False
