"""From a file to chosen components, in two stages.

First the tables are checked (no plug-in is loaded for a recipe whose tables are wrong), then each component's own
options. Both stages report all their errors at once.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lwmfw.components import KINDS, Choice, Component, DataChoice, Options
from lwmfw.errors import UserError, shown
from lwmfw.recipe.catalogue import Catalogue, discover
from lwmfw.recipe.messages import dotted, render
from lwmfw.recipe.options import as_written, read_options
from lwmfw.recipe.settings import LISTED, Written, apply, path_of, plain, retype
from lwmfw.recipe.tables import Recipe, StepSettings
from lwmfw.recipe.text import Keys, Source, name_of, read_source


@dataclass(frozen=True)
class Chosen:
    """A component as a recipe chose it: `name` is its `as`, `keys` its place in the recipe."""

    name: str
    component: Component
    options: Options
    keys: Keys

    @property
    def address(self) -> str:
        """Its place in a recipe, as behind `--set`."""
        *table, last = self.keys
        return ".".join(map(str, (*table, self.name if isinstance(last, int) else last)))


@dataclass(frozen=True)
class Resolved:
    """A recipe whose every component is found and every option checked."""

    recipe: Recipe
    chosen: list[Chosen]
    source: Source
    catalogue: Catalogue

    def tables(self) -> dict[str, Any]:
        """The recipe as plain tables, every default written out; the order of keys is that of Recipe."""
        tables = self.recipe.model_dump(exclude_none=True)
        files = self.catalogue.files.items()
        tables["plugins"] = [f"{path}#sha256:{provider.sha256}" for path, provider in files]
        for chosen in self.chosen:
            *outer, last = chosen.keys
            table: Any = tables
            for key in outer:
                table = table[key]
            name = {"as": chosen.name} if isinstance(last, int) else {}
            table[last] = {"use": table[last]["use"]} | name | as_written(chosen.options)
        return {key: tables[key] for key in Recipe.model_fields if key in tables}

    def address_of(self, choice: DataChoice) -> str:
        """Where an option that names a data set stands, as behind `--set`."""
        named = ((f"{each.address}.{key}", value) for each in self.chosen for key, value in each.options)
        return next((place for place, value in named if value == choice), "data set")

    def toml(self) -> str:
        """The recipe as TOML; running it again gives the same bits."""
        import tomli_w

        return tomli_w.dumps(self.tables())


def load_recipe(
    path: Path | str,
    settings: Mapping[str, object] = {},
    *,
    seed: int | None = None,
    plugins: os.PathLike[str] | str | Sequence[os.PathLike[str] | str] = (),
    catalogue: Catalogue | None = None,
) -> Resolved:
    """Read, merge and validate a recipe.

    Args:
        path: the TOML file.
        settings: dotted key -> value, as behind `--set`, in any order; they win over the file. Values are those of
            TOML, or what `plain` makes such of. A table is merged into that of the file.
        seed: takes the place of the recipe's seed.
        plugins: plug-in files besides those of the recipe, or one, relative to the current directory.
        catalogue: takes the place of what is installed; for tests.

    Raises:
        UserError: with all the errors of the first stage that has any, one per line.
    """
    path = Path(path)
    source = read_source(path)
    written = apply(source, settings)
    table = source.table
    table.setdefault("name", _safe_name(path))
    if seed is not None:
        table["seed"] = plain("--seed", seed)
        source.places[("seed",)] = "--seed"
    files = plugin_files(plugins)
    if files and isinstance(table.setdefault("plugins", []), list):
        table["plugins"] = table["plugins"] + files
    return _checked(source, catalogue, written)


def override(resolved: Resolved, *rounds: Mapping[str, object]) -> Resolved:
    """The recipe with dotted keys set anew; nothing is read again.

    Args:
        resolved: the recipe.
        rounds: dotted key -> value, in any order; what a later round says wins. A table takes the place of the one
            that is there, unless it comes from `--set`.

    Raises:
        UserError: as `load_recipe`.
    """
    source = copy.deepcopy(resolved.source)
    written: dict[Keys, Written] = {}
    for settings in rounds:
        written |= apply(source, settings, whole=True)
    return _checked(source, resolved.catalogue, written)


def plugin_files(plugins: Any) -> list[str]:
    """The absolute paths of plug-in files, or of one, as `--plugins` gives them."""
    given = plain("--plugins", plugins)
    listed = given if isinstance(given, list) else [given]
    return [str(Path(path_of("--plugins", file)).resolve()) for file in listed]


def _checked(source: Source, catalogue: Catalogue | None, written: dict[Keys, Written]) -> Resolved:
    """Both stages, once more after settings were found to be text."""
    while True:
        before = len(written)
        try:
            recipe = _check_tables(source, written)
            if catalogue is None:
                catalogue = discover(recipe.plugins)
            return _check_components(recipe, source, catalogue, written)
        except UserError:
            if len(written) == before:
                raise


def _faults(
    source: Source, keys: Keys, who: str, error: ValidationError, model: type[BaseModel], written: dict[Keys, Written]
) -> list[str]:
    retype(source, keys, error, written)
    return render(source, keys, who, error, model)


def _check_tables(source: Source, written: dict[Keys, Written]) -> Recipe:
    errors: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(source.table)
    except ValidationError as error:
        errors = _faults(source, (), "", error, Recipe, written)
    training = source.table.get("training")
    first = training.get("first", {}) if isinstance(training, dict) else {}
    if isinstance(first, dict):
        try:
            StepSettings.model_validate(first)
        except ValidationError as error:
            errors += _faults(source, ("training", "first"), "", error, StepSettings, written)
    for table in LISTED:
        keys = tuple(table.split("."))
        listed: Any = source.table
        for key in keys:
            listed = listed.get(key) if isinstance(listed, dict) else None
        names = [name_of(item) for item in listed] if isinstance(listed, list) else []
        for index, name in enumerate(names):
            if name and name in names[:index]:
                place = source.place((*keys, index))
                errors.append(
                    f"{place}: {table}[{index}]: a second '{shown(name)}'; give it another name with as = \"...\""
                )
    if errors or recipe is None:
        raise UserError("\n".join(errors))
    return recipe


def _check_components(recipe: Recipe, source: Source, catalogue: Catalogue, written: dict[Keys, Written]) -> Resolved:
    choose = partial(_choose, source=source, catalogue=catalogue, written=written)
    errors: list[str] = []
    chosen: list[Chosen] = []
    for kind, keys, choice in _choices(recipe):
        try:
            found = choose(kind, keys, choice)
            named = {key: value for key, value in found.options if isinstance(value, DataChoice)}
            for key, other in named.items():
                data = choose("data", (*keys, key), other)
                named[key] = DataChoice(use=other.use, **as_written(data.options))
            chosen.append(replace(found, options=found.options.model_copy(update=named)) if named else found)
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))
    return Resolved(recipe, chosen, source, catalogue)


def _choose(
    kind: str, keys: Keys, choice: Choice, *, source: Source, catalogue: Catalogue, written: dict[Keys, Written]
) -> Chosen:
    """The component that a table at some place names.

    Raises:
        UserError: there is none of that name, or its options are wrong.
    """
    try:
        component = catalogue.find(kind, choice.use)
    except UserError as error:
        raise UserError(source.behind_place((*keys, "use"), f"{dotted(keys)}.use: {error}")) from error
    try:
        options = read_options(component, choice.rest())
    except ValidationError as error:
        who = f" ({component.name}, from {component.provider})"
        raise UserError("\n".join(_faults(source, keys, who, error, component.options, written))) from error
    return Chosen(getattr(choice, "as_", None) or component.name, component, options, keys)


def _choices(recipe: Recipe) -> Iterator[tuple[str, Keys, Choice]]:
    """Kind, place and table of every component, in the order in which hooks are called."""
    for kind in KINDS:
        keys = tuple(kind.table.split("."))
        entry: Any = recipe
        for key in keys:
            entry = getattr(entry, key, None)  # None: the table around it is left out
        if isinstance(entry, list):
            for index, choice in enumerate(entry):
                yield kind.kind, (*keys, index), choice
        elif entry is not None:
            yield kind.kind, keys, entry


def _safe_name(path: Path) -> str:
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "_.+-") else "-" for c in path.stem)[:100]
    return stem if stem[:1].isalnum() else f"recipe{stem}"[:100]
