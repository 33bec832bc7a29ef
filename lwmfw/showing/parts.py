"""What a page is made of: sections of words, charts, tables and images."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lwmfw.record.reading import RecordedRun
from lwmfw.showing.charts import Chart, Lines


@dataclass(frozen=True)
class TableOf:
    """A table under a caption; one that is folded is opened by who wants it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @property
    def numbers(self) -> list[bool]:
        """Of which columns every cell is a number, or empty."""
        columns = zip(*self.rows, strict=True)
        return [all(not cell or cell[0] in "0123456789-" for cell in column) for column in columns]


@dataclass(frozen=True)
class Picture:
    """A PNG that is part of the page; `words` is for who does not see it. Pixels are shown so many times as large."""

    words: str
    png: bytes
    times: int = 1

    @property
    def uri(self) -> str:
        """It as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width * self.times, height * self.times


@dataclass(frozen=True)
class Thumbs:
    """Pictures under one title."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; `text` is shown letter by letter."""

    id: str
    heading: str
    words: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[TableOf] = ()
    thumbs: Sequence[Thumbs] = ()
    pictures: Sequence[Thumbs] = ()
    text: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.words or self.charts or self.tables or self.thumbs or self.pictures or self.text)


def present(runs: Sequence[RecordedRun], *makers: Callable[[Sequence[RecordedRun], str], Chart | None]) -> list[Chart]:
    """The charts that have something to show; a line of one point, which its table shows, is none."""
    found = [maker(runs, "") for maker in makers]
    return [c for c in found if c and not (isinstance(c, Lines) and all(len(line.x) < 2 for line in c.lines))]


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sized(number: int) -> str:
    """A number of bytes."""
    return f"{number / 1e6:.2f} MB" if number >= 1e6 else f"{number / 1000:.1f} kB" if number >= 1000 else f"{number} B"


def lasting(seconds: float) -> str:
    """A stretch of time."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
