"""The recipes that come with lwmfw: in the wheel inside the package, in a checkout beside it."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path

from lwmfw.errors import UserError, did_you_mean, shown

SCHEMA = "recipe.schema.json"
"""What `lwmfw schema` prints, beside the recipes: each names it in its first line, for editors."""


def folder() -> Path:
    """Where the shipped recipes lie."""
    package = Path(__file__).parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipes() -> dict[str, Path]:
    """Name, such as `lwm` or `fashion-mnist-mini/lwf-mc`, -> file."""
    root = folder()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.glob("**/*.toml"))}


def find(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        UserError: there is none of that name.
    """
    known = recipes()
    key = name.removesuffix(".toml")
    if key not in known:
        hint = suggestion(name) or "; `lwmfw recipes` lists them"
        raise UserError(f"no shipped recipe '{shown(name)}'{hint}")
    return known[key]


def locate(recipe: Path | str) -> Path:
    """The file that a person means: a path, or else the name of a shipped recipe."""
    known = recipes().get(str(recipe).removesuffix(".toml"))
    if known and not os.path.isfile(recipe):  # a folder of that name may be a run's
        return known
    hint = "" if os.path.isfile(recipe) else suggestion(str(recipe))
    if hint:
        raise UserError(f"{shown(str(recipe), 1000)}: no such file{hint}")
    return Path(recipe)


def suggestion(name: str) -> str:
    """What to append to a message on a name that is no shipped recipe's: those that end in it, or are near it."""
    name, known = name.replace(os.sep, "/").removesuffix(".toml"), list(recipes())
    last = {key: key.rpartition("/")[2] for key in known}
    found = [key for key in known if key.endswith(f"/{name}") or name.endswith(f"/{key}")]
    found = found or [key for key in known if name.endswith(f"/{last[key]}")]
    if not found and not did_you_mean(name, known) and "/" not in name:
        near = get_close_matches(name, set(last.values()), n=1)
        found = [key for key in known if last[key] in near]
    if len(found) > 1:
        return f"; shipped are {', '.join(found)}: name one of them"
    return f"; did you mean '{found[0]}'?" if found else did_you_mean(name, known)


def purpose(path: Path) -> str:
    """What a recipe is for: the first line of its head."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("#:"):
            return line.lstrip("# ").rstrip(".")
    return ""


def copy(name: str | None, target: Path) -> list[Path]:
    """Copy a recipe with the bases it extends, or all recipes, keeping their folders, and the schema they name.

    Raises:
        UserError: no such recipe, or a file that would be written over.
    """
    root = folder()
    pending = [find(name)] if name else list(recipes().values())
    sources: list[Path] = []
    while pending:
        path = pending.pop()
        if path not in sources:
            sources.append(path)
            base = re.search(r'^extends\s*=\s*"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
            pending += [path.parent / base[1]] if base else []
    pairs = [(source, target / source.resolve().relative_to(root.resolve())) for source in sources]
    for _, copied in pairs:
        if os.path.exists(copied):  # which takes a name that no file can have, too
            raise UserError(f"{copied}: exists; copy into another folder")
    if not os.path.exists(target / SCHEMA):  # or else it may know more components than the shipped one
        pairs.append((root / SCHEMA, target / SCHEMA))
    try:
        for source, copied in pairs:
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(source.read_bytes())
    except OSError as error:
        raise UserError(f"{target}: cannot be written to: {error.strerror}; copy into another folder") from error
    return [copied for _, copied in pairs]
