"""Settings: dotted keys and values, as `--set` gives them to a recipe and as a resolved one is told apart by.

Their order says nothing. They are applied by depth, a table before what lies in it, and within a table `use` comes
first: another component drops the options of the one before, and none of those that are given with it.
"""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lwmfw.components import KINDS
from lwmfw.errors import FOREIGN, UserError, describe, did_you_mean, quoted, shown
from lwmfw.recipe.messages import existing, wants_text
from lwmfw.recipe.text import DEEP_KEY, MAX_BYTES, MAX_DEPTH, Keys, Source, name_of, too_deep

LISTED = tuple(kind.table for kind in KINDS if kind.listed)
Names = tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """A value as `--set` gives it.

    Attributes:
        value: what the text is in TOML; the text itself where it is none.
        text: taken wherever a string is wanted, as in data.root=2024.
    """

    value: object
    text: str

    @property
    def broken(self) -> bool:
        """Whether the text begins as TOML does, and is none."""
        return self.value == self.text and self.text[0] in "[{\"'"


def flat(tables: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, the inverse of settings; components in arrays go by their name."""
    if isinstance(tables, dict):
        for key, value in tables.items():
            yield from flat(value, f"{prefix}.{key}".lstrip("."))
    elif isinstance(tables, list) and all(isinstance(item, dict) for item in tables):
        for item in tables:
            yield from flat(item, f"{prefix}.{item.get('as', item.get('use'))}")
    else:
        yield prefix, tables


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """`KEY=VALUE` texts as settings. A value is TOML; a bare word is a string, and where one is wanted any text is.

    Raises:
        UserError: a text without a key, or a value that no recipe can hold.
    """
    settings: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {shown(text)}: not KEY=VALUE; write --set training.epochs=5")
        settings[key.strip()] = Written(_value(key.strip(), value.strip()), value.strip())
    return settings


def _value(key: str, text: str) -> object:
    if DEEP_KEY.search(text) or len(text) > MAX_BYTES:
        raise UserError(f"--set {shown(key)}: the value is no plain value; put it into the recipe")
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text and text.isprintable():
            return text  # a bare word: --set data.use=synthetic
        raise _no_toml(f"--set {shown(key)}") from error
    if len(table) > 1 or too_deep(table):
        raise UserError(f"--set {shown(key)}: the value is no plain value; put it into the recipe")
    return table["value"]


def _no_toml(place: str) -> UserError:
    return UserError(f"{place}: the value is not valid TOML; quote it")


def apply(source: Source, settings: Mapping[str, object], *, whole: bool = False) -> dict[Keys, Written]:
    """Set dotted keys, whatever the order they are given in.

    Args:
        source: the recipe.
        settings: dotted key -> value. A table is merged into the one that is there; an empty one empties it, and one
            that names another component takes its place. An array takes the place of the one that is there.
        whole: a table takes the place of the one that is there, unless `--set` gives it.

    Returns:
        Place -> a setting that is to be read again where a string turns out to be wanted, by `retype`.

    Raises:
        UserError: there is no such place, or no recipe can hold the value.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f'--set: should be a table, got {quoted(settings)}; write set={{"training.epochs": 5}}')
    leaves: dict[Names, tuple[str, Any]] = {}
    for key in sorted(settings, key=lambda key: str(key).count(".")):  # what is said of a key wins over its table
        names, given = _names(key), settings[key]
        typed = isinstance(given, Written)
        value = plain(f"--set {shown(key)}", given.value if isinstance(given, Written) else given)
        leaves |= {place: (key, leaf) for place, leaf in _leaves(names, value, typed or not whole)}
    written: dict[Keys, Written] = {}
    former: dict[Keys, list[str]] = {}
    for names in sorted(leaves, key=lambda names: (len(names), names[-1] not in ("use", "as"), names)):
        key, value = leaves[names]
        keys, given = _set(source, key, names, value, former), settings[key]
        if isinstance(given, Written) and names == _names(key) and (given.broken or not isinstance(value, str)):
            written[keys] = given
    return written


def _names(key: object) -> Names:
    names = tuple(key.split(".")) if isinstance(key, str) and key.isprintable() else ()
    if not names or not all(names) or len(names) > MAX_DEPTH:
        raise UserError(f"--set {shown(str(key))}: not a dotted key; write --set training.epochs=5")
    return names


def _leaves(names: Names, value: Any, merged: bool) -> Iterator[tuple[Names, Any]]:
    """A table to be merged as the settings of its keys."""
    if merged and value and isinstance(value, dict) and ".".join(names) not in LISTED:
        for key, inner in value.items():
            yield from _leaves((*names, key), inner, merged)
    else:
        yield names, value


def _set(source: Source, key: str, names: Names, value: Any, former: dict[Keys, list[str]]) -> Keys:
    """Set one value, given as `key`; returns its place. `former`: names in arrays before the first setting of them."""
    *outer, last = names
    table: Any = source.table
    keys: Keys = ()
    for name in outer:
        if isinstance(table, list):
            position = _index(key, keys, name, table, former)
            keys, table = (*keys, position), table[position]
        else:
            keys = (*keys, name)
            if name not in table:
                table[name] = [] if ".".join(map(str, keys)) in LISTED else {}
                source.places[keys] = f"--set {shown(key)}"
            table = table[name]
        if not isinstance(table, dict | list):
            raise UserError(f"--set {shown(key)}: '{shown(name)}' is no table; `lwmfw show` prints the keys")
    if isinstance(table, list):
        raise UserError(f"--set {shown(key)}: names a component; add the option to set, as in {shown(key)}.weight")
    if last == "use" and table.get("use") != value:  # another component does not inherit the first one's options
        for option in set(table) - {"as"}:
            del table[option]
    keys = (*keys, last)
    if isinstance(value, list):
        source.replace(keys, table.get(last))
    table[last] = value
    for known in [k for k in source.places if k[: len(keys)] == keys]:
        del source.places[known]
    source.places[keys] = f"--set {shown(key)}"
    if keys[:-1] == ("training",) and isinstance(table.get("first"), dict):
        table["first"].pop(last, None)
    return keys


def retype(source: Source, prefix: Keys, error: ValidationError, written: dict[Keys, Written]) -> None:
    """Take the text of a setting for its value where validation wanted a string; `written` loses what was taken.

    Raises:
        UserError: something else was wanted, and the text is no TOML.
    """
    for detail in error.errors(include_url=False):
        keys = existing(source.table, (*prefix, *detail["loc"]), len(prefix))
        if keys not in written:
            continue
        if written[keys].broken and detail["type"].endswith("_type"):
            raise _no_toml(source.place(keys))
        if not written[keys].broken and wants_text(detail, written[keys].text):
            table: Any = source.table
            for key in keys[:-1]:
                table = table[key]
            table[keys[-1]] = written.pop(keys).text


def plain(place: str, value: Any, above: tuple[int, ...] = ()) -> Any:
    """A value from Python as a recipe can hold it: paths as strings, tuples and arrays as lists, any library's numbers.

    Raises:
        UserError: no recipe can hold it; begins with `place`.
    """
    if id(value) in above or len(above) > MAX_DEPTH:
        raise UserError(f"{place}: nested more than {MAX_DEPTH} deep; flatten it")
    above = (*above, id(value))
    match value:
        case bool() | datetime.date() | datetime.time():
            return value
        case str():
            return str.__str__(value)  # of a subclass, too
        case Mapping():
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise UserError(f"{place}: a key should be a string, got {quoted(wrong)}; quote it")
            return {str.__str__(key): plain(f"{place}.{shown(key)}", inner, above) for key, inner in value.items()}
        case list() | tuple() | range():
            return [plain(f"{place}[{index}]", inner, above) for index, inner in enumerate(value)]
        case os.PathLike():
            return plain(place, os.fspath(value), above)
    for name in ("tolist", "item"):  # of numpy and its like
        convert = getattr(value, name, None)
        if callable(convert):
            try:
                converted = convert()
            except FOREIGN as error:
                raise UserError(f"{place}: its {name}() fails: {describe(error)}; give plain values") from error
            return plain(place, converted, above)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise UserError(
        f"{place}: a value of type {type(value).__name__} cannot stand in a recipe; "
        "give a string, a number, a boolean, or a list or table of them"
    )


def path_of(place: str, value: Any) -> str:
    """What names a file or folder, as a string.

    Raises:
        UserError: it is no string and no path, or one that no file has; begins with `place`.
    """
    path = plain(place, value)
    if not isinstance(path, str):
        raise UserError(f"{place}: should be a path, got {quoted(value)}; give a string or a Path")
    if "\0" in path:
        raise UserError(f"{place}: {quoted(path)} has a NUL, which no path has; give another")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {quoted(path)} has half a letter, which no path has; give another") from error
    return path


def _index(key: str, keys: Keys, name: str, items: list[Any], former: dict[Keys, list[str]]) -> int:
    """Where in an array a component is, by its name or by the one that it had before this round of settings."""
    names = [name_of(item) for item in items]
    for known in (names, former.setdefault(keys, names)):
        if known.count(name) == 1:
            return known.index(name)
    hint = did_you_mean(name, names) or f"; choose of {', '.join(names) or 'none'}"
    raise UserError(f"--set {shown(key)}: {keys[-1]} has no single component '{shown(name)}'{hint}")
