"""Settings: dotted keys and values, as `--set` gives them to a recipe and as a resolved one is told apart by."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from lwmfw.components import KINDS
from lwmfw.errors import UserError, did_you_mean, shown
from lwmfw.recipe.text import DEEP_KEY, MAX_BYTES, MAX_DEPTH, Keys, Source, too_deep

LISTED = tuple(kind.table for kind in KINDS if kind.listed)


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
    """`KEY=VALUE` texts as settings. A value is TOML; a bare word is a string.

    Raises:
        UserError: a text without a key, or a value that is no TOML.
    """
    settings: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {shown(text)}: not KEY=VALUE; write --set training.epochs=5")
        settings[key.strip()] = _value(key.strip(), value.strip())
    return settings


def apply(source: Source, key: str, value: object) -> None:
    """Set a dotted key, as `--set` does.

    Raises:
        UserError: there is no such place.
    """
    *names, last = key.split(".")
    if not all([*names, last]) or len(names) >= MAX_DEPTH or not key.isprintable():
        raise UserError(f"--set {shown(key)}: not a dotted key; write --set training.epochs=5")
    table: Any = source.table
    keys: Keys = ()
    for name in names:
        if isinstance(table, list):
            position = _index(key, str(keys[-1]), name, table)
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
    table[last] = copy.deepcopy(value)  # what was given is not ours to change
    for known in [k for k in source.places if k[: len(keys) + 1] == (*keys, last)]:
        del source.places[known]
    source.places[(*keys, last)] = f"--set {shown(key)}"
    if keys == ("training",) and isinstance(table.get("first"), dict):
        table["first"].pop(last, None)


def _value(key: str, text: str) -> object:
    if DEEP_KEY.search(text) or len(text) > MAX_BYTES:
        raise UserError(f"--set {shown(key)}: the value is no plain value; put it into the recipe")
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text and text[0] not in "[{\"'" and text.isprintable():
            return text  # a bare word: --set data.use=synthetic
        raise UserError(f"--set {shown(key)}: the value is not valid TOML; quote it") from error
    if len(table) > 1 or too_deep(table):
        raise UserError(f"--set {shown(key)}: the value is no plain value; put it into the recipe")
    return table["value"]


def name_of(item: object) -> str:
    """The name of a component in an array: its `as`, or what follows the provider in its `use`; empty: it has none."""
    if not isinstance(item, dict):
        return ""
    return str(item.get("as") or str(item.get("use", "")).rpartition("/")[2])


def _index(key: str, table: str, name: str, items: list[Any]) -> int:
    names = [name_of(item) for item in items]
    if names.count(name) != 1:
        hint = did_you_mean(name, names) or f"; choose of {', '.join(names) or 'none'}"
        raise UserError(f"--set {shown(key)}: {table} has no single component '{shown(name)}'{hint}")
    return names.index(name)
