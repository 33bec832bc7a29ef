"""The cells of a sweep: every recipe with every combination of values and every seed, each a recipe of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from lwmfw.assembly.assemble import assemble
from lwmfw.errors import UserError, shown
from lwmfw.recipe import shipped
from lwmfw.recipe.load import Resolved, load_recipe, override
from lwmfw.recipe.settings import Written, parse_settings
from lwmfw.record.identity import identity_of

Axes = Mapping[str, Sequence[str]]
"""Dotted key -> the values it takes in turn, as texts."""
_LONGEST = 40
"""Letters of a value in the name of a cell."""


@dataclass(frozen=True)
class Grid:
    """What a sweep varies.

    Attributes:
        recipes: files, or names of shipped recipes.
        axes: the settings; those of one value are the same in every cell.
        seeds: empty: each recipe's own.
        plugins: plug-in files besides those of the recipes.
        threads: of each run that does not state its own; 0: not told.
    """

    recipes: Sequence[Path]
    axes: Axes
    seeds: Sequence[int]
    plugins: Sequence[Path] = ()
    threads: int = 0


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its name, which says in what it differs from the others, and its resolved recipe."""

    name: str
    resolved: Resolved


def parse_axes(texts: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=VALUE,VALUE` texts. A comma inside brackets or quotes is part of a value, as in [3,2,5] or "a,b".

    Raises:
        UserError: a text without a key, a key that is given twice, or a value that is left out or not closed.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        key = key.strip()
        parse_settings([text])  # that there is a key, and no more than recipes hold
        if key in axes:
            raise UserError(f"--set {shown(key)}: is given twice; write --set {shown(key)}=VALUE,VALUE")
        axes[key] = _values(key, values)
    return axes


def _values(key: str, text: str) -> list[str]:
    found, begun = [], ""
    for part in text.split(","):
        begun = f"{begun},{part}" if begun else part.strip()
        if not begun:
            raise UserError(f"--set {shown(key)}: a value is left out between commas; write VALUE,VALUE")
        written = parse_settings([f"{key}={begun}"])[key]
        if not isinstance(written, Written) or not written.broken:
            found.append(begun.strip())
            begun = ""
    if begun:
        raise UserError(f"--set {shown(key)}: {shown(begun)} is not closed; close the bracket or the quote")
    return found


def parse_seeds(text: str) -> list[int]:
    """`1,2,3` as seeds.

    Raises:
        UserError: one is no whole number of at least 0, or stands there twice.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    seeds = [int(part) if part.isdecimal() and len(part) < 20 else -1 for part in parts]  # a recipe takes no longer one
    if min(seeds, default=0) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {shown(text)}: not different whole numbers; write --seeds 1,2,3")
    return seeds


def cells_of(grid: Grid) -> list[Cell]:
    """Every cell, its recipe resolved and its components attached, so that what can be refused is refused here.

    Raises:
        UserError: a cell's recipe is wrong, named with the cell; two cells are the same run; or seeds are said twice.
    """
    if grid.seeds and "seed" in grid.axes:
        raise UserError("--set seed: there are --seeds; leave one of them out")
    cells: list[Cell] = []
    seeds: list[int | None] = [*grid.seeds] or [None]
    for recipe, values, seed in product(grid.recipes, product(*grid.axes.values()), seeds):
        settings = dict(zip(grid.axes, values, strict=True))
        # keys of one value too: a cell keeps its name when a key gets a second one
        parts = [f"{_short(key, grid.axes)}={_slug(settings[key], grid.axes[key])}" for key in grid.axes]
        try:
            resolved = _resolved(grid, recipe, settings, seed)
        except UserError as error:
            bad = "-".join([*parts, *([f"s{seed}"] if seed is not None else [])])
            if not bad:
                raise  # the only cell
            raise UserError(f"{recipe} with {bad}: {error}") from error
        parts = [resolved.recipe.name] * (len(grid.recipes) > 1) + parts
        cells.append(Cell("-".join([*parts, f"s{resolved.recipe.seed}"]), resolved))
    _check_differ(cells)
    return cells


def _resolved(grid: Grid, recipe: Path, settings: Mapping[str, str], seed: int | None) -> Resolved:
    written = parse_settings([f"{key}={value}" for key, value in settings.items()])
    resolved = load_recipe(shipped.locate(recipe), written, seed=seed, plugins=list(grid.plugins))
    if grid.threads and not resolved.recipe.training.threads:
        resolved = override(resolved, {"training.threads": grid.threads})
    assemble(resolved)
    return resolved


def _short(key: str, keys: Axes) -> str:
    """The end of a dotted key by which it is told from the others."""
    names = key.split(".")
    ends = [".".join(names[-count:]) for count in range(1, len(names) + 1)]
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)


def _slug(value: str, values: Sequence[str]) -> str:
    """A value as part of a name of a folder; with a digest where letters are not enough to tell it from the others."""
    slug, *others = (re.sub(r"[^A-Za-z0-9._+-]+", "-", each).strip("-.").lower() for each in (value, *values))
    if others.count(slug) == 1 and 0 < len(slug) <= _LONGEST:
        return re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-.")
    return f"{slug[:_LONGEST]}-{hashlib.sha256(value.encode()).hexdigest()[:8]}".lstrip("-")


def _check_differ(cells: Sequence[Cell]) -> None:
    names: dict[str, str] = {}
    recipes: dict[str, str] = {}
    for cell in cells:
        identity = json.dumps(identity_of(cell.resolved.tables()), sort_keys=True, default=str)
        same = names.get(cell.name.lower()) or recipes.get(identity)
        if same:
            raise UserError(f"{same} and {cell.name}: are one run, or recipes of one name; leave one of them out")
        names[cell.name.lower()] = recipes[identity] = cell.name
