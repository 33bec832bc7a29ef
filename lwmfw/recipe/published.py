"""The figures that papers have of a shipped recipe, as its head states them, in the one form that is read:

# published: MEASURE, READOUT: VALUE in PROTOCOL, VALUE in PROTOCOL (SOURCE)

such as "average, nme: 0.581 in 50 + 5 x 10, 0.538 in 50 + 10 x 5 (Douillard et al. 2020)", on one line or on several
that are set in. READOUT is left out where it is not told; a protocol is the classes of each step; values are 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lwmfw.recipe import shipped
from lwmfw.recipe.text import read_source

_ENTRY = re.compile(r"^# published: (.*(?:\n#  +\S.*)*)", re.MULTILINE)
_PROTOCOL = r"(?:(\d+) \+ )?(\d+) x (\d+)"
_MEASURE = r"average|last|first-step forgetting|top-5 after \d+ classes"
_NAME = re.compile(r'^name = "(.*)"$', re.MULTILINE)
_FIGURE = rf"([01]\.\d+) in {_PROTOCOL}"
_FORM = re.compile(
    rf"(?P<measure>{_MEASURE})(?:, (?P<readout>\S+))?: (?P<figures>(?:{_FIGURE}(?:, )?)+) \((?P<source>.+)\)"
)


@dataclass(frozen=True)
class Published:
    """A figure of a paper.

    Attributes:
        measure: what it is of.
        readout: what decided; empty: not told.
        value: the figure, 0..1.
        sizes: how many classes each step had.
        source: paper or thesis, and what was otherwise there.
        recipe: the shipped recipe whose head states it, such as cifar100/b50/podnet.
        settings: of runs beside which it stands, where they are not known to be that recipe's: OTHER or UNKNOWN.
    """

    measure: str
    readout: str
    value: float
    sizes: tuple[int, ...]
    source: str
    recipe: str = ""
    settings: str = ""

    def __str__(self) -> str:
        return f"{self.measure} {self.value:.3f} ({self.source}{f'; {self.settings}' if self.settings else ''})"


OTHER, UNKNOWN = "other settings", "settings not known"


def read_published(text: str, recipe: str = "") -> list[Published]:
    """The published figures that the head of a recipe states.

    Raises:
        ValueError: a line is not of the form.
    """
    found = []
    for entry in _ENTRY.findall(text):
        line = re.sub(r"\n# +", " ", entry)
        form = _FORM.fullmatch(line)
        if not form:
            raise ValueError(f"not MEASURE, READOUT: VALUE in PROTOCOL (SOURCE): {line}")
        for value, first, steps, size in re.findall(_FIGURE, form["figures"]):
            sizes = (*([int(first)] if first else []), *[int(size)] * int(steps))
            figure = form["measure"], form["readout"] or "", float(value), sizes, form["source"]
            found.append(Published(*figure, recipe))
    return found


def published_of(recipe: str, components: Iterable[str], sizes: Sequence[int]) -> list[Published]:
    """What is published of a shipped recipe.

    Args:
        recipe: its name, which recipes on other data sets may have, too.
        components: names among which is its data set's.
        sizes: how many classes each step had; of other protocols there is nothing.
    """
    found = []
    for name, (path, text) in _stating().items():
        if recipe in (path.stem, *_NAME.findall(text)):
            table = read_source(path).table
            if table.get("name", path.stem) == recipe and table["data"]["use"] in components:
                found += read_published(text, name)
    return [figure for figure in found if figure.sizes == tuple(sizes)]


@cache
def _stating() -> dict[str, tuple[Path, str]]:
    """The recipes whose heads state something."""
    texts = {name: (path, path.read_text(encoding="utf-8")) for name, path in shipped.recipes().items()}
    return {name: (path, text) for name, (path, text) in texts.items() if "# published: " in text}
