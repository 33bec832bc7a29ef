"""A name becomes a package to fill: the manual's example of a kind under that name, with a test and a recipe."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lwmfw.components import KINDS, Component
from lwmfw.errors import UserError, shown
from lwmfw.recipe.catalogue import Catalogue
from lwmfw.recipe.tables import FolderName

TEMPLATES = Path(__file__).parent / "templates"
"""What all kinds share, and a folder for each with its component, its test and its lines of a recipe."""

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
_RECORD = re.compile(r'yield \w+\("([^"]+)", (\w+)')


def begin(name: str, kind: str, folder: Path, known: Catalogue) -> list[Path]:
    """Write a package with one component; returns its files.

    Args:
        name: of the component.
        kind: of KINDS.
        folder: of the package; made, unless it is there.
        known: the components that recipes can name already.

    Raises:
        UserError: a name that no package or recipe can have, or that is taken; a file that would be written over.
    """
    fault = name_fault(name, kind, known)
    if fault:
        raise UserError(f"'{shown(name)}' {fault}")
    files = {folder / path: text for path, text in render(name, kind).items()}
    for path in files:
        if os.path.lexists(path):
            raise UserError(f"{path}: exists; choose another folder with --out")
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                written.append(path)
                stream.write(text)
    except OSError as error:
        for path in written:  # all of it or nothing
            path.unlink()
        raise UserError(f"{folder}: cannot be written to: {error.strerror}; choose another with --out") from error
    return written


def name_fault(name: str, kind: str, known: Catalogue) -> str:
    """Why a component cannot have a name, and what to do; empty: it can."""
    if not _NAME.fullmatch(name):
        return "names no package; take up to 60 letters, digits, '-', '_' and '.', a letter first and no sign last"
    if name.lower().startswith("lwmfw"):
        return "has in it what the package is called by itself; write what stands behind 'lwmfw-'"
    try:
        TypeAdapter(FolderName).validate_python(name)
    except ValidationError:
        return "names no folder on every system; take another name"
    taken = [component.provider for component in known.of_kind(kind) if component.name.lower() == name.lower()]
    if taken:
        return f"is a {kind} of {taken[0]}; recipes could not tell which is meant: take another name"
    if importlib.util.find_spec(module_of(name)):
        return f"would be the module {module_of(name)}, which is installed; take another name"
    return ""


def render(name: str, kind: str) -> dict[str, str]:
    """The files of a package: path within it -> text."""
    component, test, lines = (read(kind, file) for file in ("component.py", "test.py", "lines.toml"))
    ((example, example_class),) = _RECORD.findall(component)
    (of_kind,) = (each for each in KINDS if each.kind == kind)
    named = class_of(name, of_kind, "" if name == example else component + test)
    words = {
        "$name": name,
        "$module": module_of(name),
        "$distribution": distribution_of(name),
        "$kind": kind,
        f'"{example}"': f'"{name}"',
        module_of(example): module_of(name),
        example_class: named,
        f"{example_class}Options": f"{named}Options",
    }
    recipe, readme = (read("", file).replace("$lines\n", lines) for file in ("recipe.toml", "README.md"))
    files = {
        "pyproject.toml": read("", "pyproject.toml"),
        "README.md": readme,
        ".gitignore": read("", "gitignore"),
        "recipe.toml": recipe,
        f"{module_of(name)}.py": component,
        f"tests/test_{module_of(name).removeprefix('lwmfw_')}.py": test,
    }
    return {path: in_other_words(text, words) for path, text in files.items()}


def read(kind: str, file: str) -> str:
    """A template."""
    return (TEMPLATES / kind / file).read_text(encoding="utf-8")


def in_other_words(text: str, words: dict[str, str]) -> str:
    """A text with each of some words, where it stands alone, in another's place."""
    return re.sub(rf"(?<!\w)({'|'.join(map(re.escape, words))})(?!\w)", lambda found: words[found[0]], text)


def distribution_of(name: str) -> str:
    """What pip calls the package of a component."""
    return "lwmfw-" + re.sub(r"[._-]+", "-", name).lower()


def module_of(name: str) -> str:
    """What Python calls it."""
    return distribution_of(name).replace("-", "_")


def class_of(name: str, kind: type[Component], code: str) -> str:
    """A name as that of a class: one that no statement of the code, the language or pytest means something by."""
    named = "".join(part[:1].upper() + part[1:] for part in re.split(r"[._-]+", name))
    taken = {*re.findall(r"\w+", code), *keyword.kwlist}
    if {named, f"{named}Options"} & taken or named.startswith("Test"):
        return kind.__name__ + named
    return named
