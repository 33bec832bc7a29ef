"""Recipe files as text: limits before parsing, `extends`, and the line every value came from."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lwmfw.errors import UserError, did_you_mean, quoted, shown
from lwmfw.recipe import shipped

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_EXTENDS = 8
Keys = tuple[str | int, ...]
# tomllib needs quadratic time for a key of many dots, so such keys are refused unparsed
_PART = r"(?:[\w-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')"
DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}")
_HEADER = re.compile(r"[ \t]*+\[(\[)?([^\[\]#]++)\]")
_TOKEN = re.compile(r"\"\"\"|'''|\"(?:[^\"\\]|\\.)*+\"|'[^']*+'|[#\[\]{}]")
_ASSIGNMENT = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")


@dataclass
class Source:
    """A recipe before validation.

    Attributes:
        path: the recipe file.
        text: its content as given.
        table: the merged tables of the recipe, its bases and `--set`.
        places: for keys of the table, where they were written: "file:line" or "--set".
        replaced: for arrays of components that took the place of a base's, what they replaced, in words.
    """

    path: Path
    text: str
    table: dict[str, Any]
    places: dict[Keys, str] = field(default_factory=dict)
    replaced: dict[Keys, str] = field(default_factory=dict)

    def place(self, keys: Keys) -> str:
        """Where `keys`, or the nearest table around it, was written."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.places:
                return self.places[keys[:length]]
        return str(self.path)

    def behind_place(self, keys: Keys, said: str) -> str:
        """What is said of a key, with which it begins, behind where `keys` were written; `--set KEY` has named it."""
        place = self.place(keys)
        key = place.removeprefix("--set ")
        named = key != place and said.startswith((f"{key}: ", f"{key} "))
        return f"--set {said}" if named else f"{place}: {said}"

    def replace(self, array: Keys, components: object) -> None:
        """Note that the components of an array, as they stand here, are replaced."""
        names = [name for name in map(name_of, components) if name] if isinstance(components, list) else []
        if names:
            file = re.sub(r":\d+$", "", self.place(array))
            self.replaced[array] = f"replaces {shown(', '.join(names), 200)} of {Path(file).name}"


def name_of(item: object) -> str:
    """The name of a component in an array: its `as`, or what follows the provider in its `use`; empty: it has none."""
    if not isinstance(item, dict):
        return ""
    own, use = (value if isinstance(value := item.get(key), str) else "" for key in ("as", "use"))
    return own or use.rpartition("/")[2]


def placed(error: UserError, source: Source) -> str:
    """What an error says, behind the place where the key that it carries was written."""
    return source.behind_place(error.keys, str(error)) if error.keys else str(error)


def read_source(path: Path) -> Source:
    """Read a recipe with its bases.

    Raises:
        UserError: a file that cannot be read as TOML within the limits, or a cycle or an escape in `extends`.
    """
    return _read(path, ())


def _read(path: Path, chain: tuple[Path, ...]) -> Source:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{shown(str(path))}: no such file can be read; it is a link to itself or no file name"
        ) from error
    if resolved in chain:
        raise UserError(f"{path}: extends itself through {' -> '.join(p.name for p in chain)}; break the cycle")
    if len(chain) >= MAX_EXTENDS:
        raise UserError(f"{path}: more than {MAX_EXTENDS} recipes extend one another; flatten them")
    text = _text(path)
    table = _parse(path, text)
    source = Source(path, text, table, {keys: f"{path}:{line}" for keys, line in _lines(text)})
    if isinstance(table.get("plugins"), list):
        folder = path.resolve().parent
        table["plugins"] = [str(folder / p) if isinstance(p, str) else p for p in table["plugins"]]
    if "extends" not in table:
        return source
    base = _read(_base(source, table.pop("extends")), (*chain, resolved))
    base.table.pop("name", None)  # another file is another recipe
    base.places.pop(("name",), None)
    theirs, ours = base.table.get("plugins"), table.get("plugins")
    if isinstance(theirs, list) and isinstance(ours, list):
        table["plugins"] = [*theirs, *(file for file in ours if file not in theirs)]
    _keep_places(base, table, ())
    return Source(path, text, merge(base.table, table), base.places | source.places, base.replaced)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            hint = "it is no regular file" if path.exists() else "no such file; `lwmfw recipes` lists the shipped ones"
            raise UserError(f"{shown(str(path), 1000)}: {hint}")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{shown(str(path), 1000)}: cannot be read: {error.strerror}") from error
    if raw.startswith(codecs.BOM_UTF8):
        raise UserError(f"{path}:1: starts with a byte order mark; save it as UTF-8 without one")
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES // 1024} KiB; a recipe is a short text file")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    deep = DEEP_KEY.search(text)
    if deep:
        line = text.count("\n", 0, deep.start()) + 1
        raise UserError(f"{path}:{line}: a key of more than {MAX_DEPTH} parts; use tables")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r" \(at line (\d+), column \d+\)", message)
        place = f"{path}:{at[1]}" if at else str(path)
        what = message.replace(at[0], "") if at else message
        raise UserError(f"{place}: not valid TOML: {what[:1].lower()}{what[1:]}; correct the line") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
        raise UserError(f"{path}: not a recipe: {what}; correct it") from error
    for key, value in table.items():
        if too_deep(value):
            written = dict(_lines(text)).get((key,))
            place = f"{path}:{written}" if written else str(path)
            raise UserError(f"{place}: {shown(key)}: nested more than {MAX_DEPTH} deep; flatten it")
    return table


def too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _base(source: Source, name: object) -> Path:
    place = source.place(("extends",))
    if not isinstance(name, str):
        raise UserError(f'{place}: extends: should be a file name, got {quoted(name)}; write extends = "base.toml"')
    folder, key = source.path.parent, name.removesuffix(".toml")
    meant = [folder / name, folder / f"{key}.toml"]
    try:
        inside = all(file.resolve().is_relative_to(folder.resolve()) for file in meant)
        found = [file for file in meant if file.is_file()]
        others = [file for file in found if not file.samefile(source.path)]
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{place}: extends: '{shown(name)}' is no file name; write extends = \"base.toml\"") from error
    if Path(name).is_absolute() or not inside:
        raise UserError(f"{place}: extends: '{shown(name)}' leaves the folder of the recipe; move the base into it")
    if others:
        return others[0]
    known = shipped.recipes().get(key, found[0] if found else None)
    if known is None:
        beside = {p.stem: p.name for p in folder.glob("*.toml") if p.is_file() and p != source.path}
        near = did_you_mean(key, beside) and did_you_mean(name, beside.values())  # ".toml" alone makes nothing near
        hint = near or shipped.suggestion(name) or "; write it there, or name a shipped one"
        raise UserError(f"{place}: extends: no file '{shown(name)}' beside the recipe{hint}")
    return known


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables by key; everything else, arrays included, is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # a table that names another component does not inherit the first one's options
        other = both and "use" in value and value["use"] != merged[key].get("use")
        merged[key] = merge(merged[key], value) if both and not other else value
    return merged


def _keep_places(base: Source, over: dict[str, Any], prefix: Keys) -> None:
    """Forget where the base wrote what `over` replaces."""
    for key, value in over.items():
        keys = (*prefix, key)
        if isinstance(value, dict):
            _keep_places(base, value, keys)
        else:
            base.replace(keys, _at(base.table, keys) if isinstance(value, list) else None)
            for known in [k for k in base.places if k[: len(keys)] == keys]:
                del base.places[known]


def _at(table: Any, keys: Keys) -> object:
    """What stands at a place; None: nothing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Keys and the lines that write them; tomllib does not tell. Good enough for messages, not a parser."""
    table: Keys = ()
    counts: dict[Keys, int] = {}
    quote, depth = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        inside = quote or depth
        quote, depth = _scan(line, quote, depth)
        if inside:
            continue
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header:
            table = _split(header[2])
            if header[1]:
                if table not in counts:
                    yield table, number
                counts[table] = counts.get(table, -1) + 1
            table = _with_indices(table, counts)
            yield table, number
        elif assignment:
            keys = (*table, *_split(assignment[1]))
            for length in range(len(table) + 1, len(keys) + 1):
                yield keys[:length], number


def _scan(line: str, quote: str, depth: int) -> tuple[str, int]:
    """The multi-line string and the number of brackets that are open after a line."""
    at = 0
    while True:
        if quote:
            end = line.find(quote, at)
            if end < 0:
                return quote, depth
            at, quote = end + 3, ""
        token = _TOKEN.search(line, at)
        if token is None or token[0] == "#":
            return "", depth
        at = token.end()
        if token[0] in ('"""', "'''"):
            quote = token[0]
        depth += (token[0] in "[{") - (token[0] in "]}")


def _with_indices(table: Keys, counts: dict[Keys, int]) -> Keys:
    keys: Keys = ()
    plain: Keys = ()
    for name in table:
        keys, plain = (*keys, name), (*plain, name)
        if plain in counts:
            keys = (*keys, counts[plain])
    return keys


def _split(dotted: str) -> Keys:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
