"""Which files are images; imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from lwmfw.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Of files that are taken for images."""


def images_below(folder: Path) -> list[str]:
    """The images in a folder and its sub-folders by suffix, sorted; hidden ones and links to folders are left out.

    Raises:
        UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); make it readable or remove it")

    found = []
    for path, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and name[0] != ".")
        found += [os.path.join(path, name) for name in images]
    return sorted(found)
