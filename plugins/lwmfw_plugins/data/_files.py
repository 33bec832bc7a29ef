"""What the data sets made of image files share: their options, where they are found, and lists of files that are
checked before they are believed."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import field_validator, model_validator

from lwmfw import Field, Folder, Options, UserError, check_room, folders_in

if TYPE_CHECKING:
    from lwmfw import DataSet, ImageSet

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet's training images. They are used for every set, as most pretrained backbones expect."""

GREY_MEAN, GREY_STD = [0.449], [0.226]
"""Their averages, for grey images."""

Labelled = tuple[str, int]
"""The path of an image, and its label."""


class FileOptions(Options):
    """Options of every set that is made of files."""

    root: Folder = Field("", description="folder with the published layout")
    size: int = Field(224, ge=8, le=1024, description="height and width to which images are brought, in pixels")
    decode: Literal["each epoch", "once"] = Field(
        "each epoch",
        description="each epoch: by workers, a random part resized, memory does not grow with the set; "
        "once: into memory, the centre, then shifted by up to 1/16 of its size",
    )
    flip: bool = Field(True, description="whether training images are mirrored at random")
    channels: Literal[1, 3] = Field(3, description="3, or 1 for grey")
    mean: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        MEAN, description="per channel, of pixels scaled to 0..1; default: ImageNet's"
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(STD, description="per channel, likewise")

    background: str = Field("white", description="colour behind transparent pixels, a name or #rrggbb")
    values: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(
        [],
        description="of files with more than 8 bits per channel: [lowest, highest], the values that become black and "
        "white; []: what the set has, integers by their depth, floats as 0..1 or 0..255",
    )
    max_pixels: int = Field(
        89_478_485,
        ge=1,
        description="most pixels of a file; of a larger JPEG, which is decoded at a fraction of its size, "
        "most pixels after decoding, unless it has several scans",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_grey(cls, table: Any) -> Any:
        grey = isinstance(table, dict) and table.get("channels") == 1
        return {"mean": GREY_MEAN, "std": GREY_STD} | table if grey else table

    @model_validator(mode="after")
    def _for_each_channel(self) -> FileOptions:
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.channels:
                raise ValueError(f"input should have {self.channels} of {key}, one per channel")
        return self

    @field_validator("background")
    @classmethod
    def _colour(cls, name: str) -> str:
        from PIL.ImageColor import getrgb

        getrgb(name)
        return name

    @field_validator("values")
    @classmethod
    def _range(cls, values: list[float]) -> list[float]:
        if values and not (len(values) == 2 and values[0] < values[1]):
            raise ValueError("input should be two numbers, the smaller one first, or []")
        return values


class Entry(NamedTuple):
    """What a line of a list file says of its key, and the line's place."""

    value: str
    place: str


def check_fits(images: int, options: FileOptions) -> None:
    """Refuse so many images where they are to be decoded into memory and do not fit.

    Raises:
        UserError: they do not.
    """
    if options.decode == "once":
        check_room(images, (options.channels, options.size, options.size))


def data_set(
    train: Iterable[Labelled],
    test: Iterable[Labelled],
    names: list[str],
    options: FileOptions,
    skipped: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
) -> DataSet:
    """The data set of labelled files, held as the options say.

    Raises:
        UserError: files do not fit into memory, are deeper than 8 bits and have no range of values in common, or one
            cannot be read.
    """
    import torch

    from lwmfw import DataSet, ImageFiles, decode_images

    once, size = options.decode == "once", options.size
    # for evaluation the field shows the centre 224 of 256 pixels; images in memory keep their rim for the random shift
    resize = size if once else round(size * 256 / 224)

    shown = [*train]
    listed = [*shown, *test]
    check_fits(len(listed), options)
    labels = torch.tensor([label for _, label in listed], dtype=torch.int64)
    files = ImageFiles(
        [path for path, _ in listed],
        labels,
        size,
        resize,
        channels=options.channels,
        background=options.background,
        values=tuple(options.values),
        max_pixels=options.max_pixels,
    ).settled()
    if files.only_flat():
        print("data: every image is of one single value; look at the files, and at data.values", file=sys.stderr)

    def held(first: int, last: int) -> ImageSet:
        part = files.select(torch.arange(first, last))
        return decode_images(part) if once else part

    padding, parts = size // 16 if once else 0, (held(0, len(shown)), held(len(shown), len(listed)))
    return DataSet(*parts, names, options.mean, options.std, padding, options.flip, list(skipped), dict(left_out or {}))


def find(root: str, places: Sequence[str], marker: str, source: str) -> Path:
    """The first place below root that holds the marker, which may be a file or a folder.

    Raises:
        UserError: none does; names the paths looked at and where the set comes from.
    """
    if not root:
        raise UserError(
            f"the images are not shipped; set data.root (--set data.root=DIR) to the unpacked set, {source}"
        )
    looked = [Path(root, place) for place in places]
    for folder in looked:
        if (folder / marker).exists():
            return folder
    listed = ", ".join(str(folder) for folder in looked)
    raise UserError(f"not found; looked for {marker} in {listed}; set data.root to the unpacked set, {source}")


def sub_folders(folder: Path, left_out: Counter[str] | None = None) -> list[Path]:
    """The folders in a folder, links too, in natural order, without hidden ones and those that systems leave.

    Args:
        folder: is looked into.
        left_out: counts what is passed over.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return [Path(path) for path in folders_in(folder, left_out)]
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; set data.root to another folder") from error


def shuffled(paths: Iterable[str], folder: Path, seed: int) -> list[str]:
    """Paths in an order that is a function of the seed and of their names below `folder`, wherever that lies."""

    def digest(path: str) -> bytes:
        name = Path(path).relative_to(folder).as_posix()
        return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()

    return sorted(paths, key=digest)


def read_list(path: Path) -> dict[str, Entry]:
    """The lines of a list file by their first word; blank lines are passed over.

    Raises:
        UserError: no such file, not text, or a word that begins two lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore the file") from error
    found: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in found:
            raise UserError(f"{path}:{number}: a second line of '{key}'; restore the file")
        if key:
            found[key] = Entry(value.strip(), f"{path}:{number}")
    return found


def listed_image(folder: Path, name: str, place: str) -> str:
    """The path of an image that a list names.

    Raises:
        UserError: it is missing, or outside the folder.
    """
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{place}: '{name}' names no file inside {folder}; restore the list")
    if not path.is_file():
        raise UserError(f"{place}: there is no {path}; restore the file")
    return str(path)


def check_class_count(found: int, published: int, place: Path) -> None:
    """Refuse a set with other classes than the published ones.

    Raises:
        UserError: with both counts.
    """
    if found != published:
        raise UserError(f"{place} has {found} classes, not the published {published}; restore the set")
