"""What a shell proposes for a word that is being typed; without torch, for it is asked at every press of a key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name, and recipe files."""
    return [*shipped_recipe(incomplete), *_paths(incomplete, lambda path: path.suffix == ".toml")]


def shipped_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name."""
    from lwmfw.recipe import shipped

    return _beginning(incomplete, shipped.recipes())


def run(incomplete: str) -> list[str]:
    """Run directories."""
    from lwmfw.record.reading import RecordedRun

    return list(_paths(incomplete, lambda path: RecordedRun(path).exists))


def component(incomplete: str) -> list[str]:
    """Components of any kind."""
    from lwmfw.recipe.catalogue import discover

    return _beginning(incomplete, sorted({each.name for each in discover().components}))


def hook(incomplete: str) -> list[str]:
    """Hooks, in the order of a run."""
    from lwmfw.hookspecs import SPECS

    return _beginning(incomplete, SPECS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    """Paths that begin like a word: what is wanted, and what lies in folders, which may lead there.

    A folder stands for what is in it, or a shell would take the only one for the end of the word.
    """
    folder, _, begun = incomplete.rpartition("/")
    for path in _entries(Path(folder or ("/" if incomplete.startswith("/") else ".")), begun, wanted):
        if wanted(path):
            yield str(path)
        else:
            yield from (str(each) if wanted(each) else f"{each}/" for each in _entries(path, "", wanted))


def _entries(folder: Path, begun: str, wanted: Callable[[Path], bool]) -> list[Path]:
    """What a folder holds that begins so, and is wanted or a folder itself; hidden only if it was asked for."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith(begun) and name.isprintable())
    except OSError:
        return []
    paths = [folder / name for name in names if begun or not name.startswith(".")]
    return [path for path in paths if wanted(path) or path.is_dir()]
