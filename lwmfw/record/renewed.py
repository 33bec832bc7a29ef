"""The recipe of a run that goes on: with its files where they lie now, and plug-in files as they were mended."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lwmfw.errors import UserError, command, did_you_mean, harmless, shown
from lwmfw.recipe.catalogue import OtherFile
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.places import places
from lwmfw.recipe.settings import flat
from lwmfw.record.reading import RecordedRun


def renewed(recorded: RecordedRun, settings: Mapping[str, object], plugins: Sequence[str]) -> Resolved:
    """The recipe of a run with other places, and with plug-in files in the place of those of their names.

    What lies in other places is looked at where the run goes on; of plug-in files it is told on stderr.

    Raises:
        UserError: a setting that names no place, or a file by whose name the run has none.
        CheckpointRefused: resolved.toml is damaged.
    """
    replaced = {"plugins": _replaced(recorded, plugins)} if plugins else {}
    try:
        resolved = recorded.recipe_with({**settings, **replaced})
    except OtherFile as error:  # as where a mended one was copied, and no more
        again = command("resume", recorded.path, "--plugins", "FILE")
        raise UserError(f"{error}, or go on with a mended one: {again}") from error
    before, after = (dict(flat({**tables, "plugins": []})) for tables in (recorded.tables, resolved.tables()))
    if "plugins" in settings:
        raise UserError("--set plugins: takes the place of no file; name the mended file with --plugins")
    movable = sorted(places(resolved))
    for key in [*before, *(key for key in after if key not in before)]:
        if before.get(key) != after.get(key) and key not in movable:
            raise UserError(
                f"--set {shown(key)}: cannot change in a run that goes on, only where its files lie can "
                f"({', '.join(movable) or 'its recipe names none'}); start a run of its own with `lwmfw run`"
            )
    return resolved


def _replaced(recorded: RecordedRun, plugins: Sequence[str]) -> list[str]:
    """The plug-in files of a run, those that were mended in the place of the copies that it keeps."""
    given = {Path(file).name: file for file in plugins}
    kept = {_name(entry): str(entry) for entry in recorded.tables.get("plugins", [])}
    for name, file in given.items():
        if name not in kept:
            hint = did_you_mean(name, kept) or f"; it has {', '.join(kept) or 'none'}"
            raise UserError(f"--plugins {shown(file, 1000)}: {recorded.path} has no plug-in file of that name{hint}")
    return [given.get(name) or str((recorded.path / entry).absolute()) for name, entry in kept.items()]


def _name(entry: Any) -> str:
    return Path(str(entry).partition("#")[0]).name


def tell_mended(recorded: RecordedRun, resolved: Resolved) -> None:
    """Say on stderr which plug-in files are others than a run has begun with."""
    before = {_name(entry): str(entry).rpartition(":")[2] for entry in recorded.tables["plugins"]}
    for path, provider in resolved.catalogue.files.items():
        if before.get(path.name) != provider.sha256:
            where = harmless(f"{path}: takes the place of {recorded.path}/plugins/{path.name}")
            print(f"{where}; sha256 was {before.get(path.name)}, is {provider.sha256}", file=sys.stderr)
