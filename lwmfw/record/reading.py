"""The one reading side of a run directory: whatever wants to know something of a run asks here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw.errors import CheckpointRefused, UserError, command, one_line, shown
from lwmfw.recipe.settings import flat
from lwmfw.record.files import LARGE, SMALL, bounded, check_size, told_of_reading
from lwmfw.record.results import Results
from lwmfw.record.summed import SUMS, read_summed

if TYPE_CHECKING:
    from lwmfw.recipe.load import Resolved
    from lwmfw.record.checkpoint import Checkpoint


def settings_of(tables: Mapping[str, Any], results: Results) -> dict[str, str]:
    """Dotted key -> value, as JSON, of what decides the numbers of a resolved recipe; seed, threads, observers and
    origin left out. Files stand by their digests, wherever they lie: those that components read, and plug-in files by
    name as well."""
    files = _plugins_of(tables, results)
    values = {key: json.dumps(value, default=str) for key, value in flat({**tables, "plugins": files})}
    values |= {key: f"sha256:{digest}" for key, digest in results.files.items() if key in values}
    apart = ("seed", "training.threads", "observers", "console", "origin")
    return {k: v for k, v in values.items() if not k.startswith(apart)}


def _plugins_of(tables: Mapping[str, Any], results: Results) -> list[str]:
    """Name and digest of the plug-in files that components come from, observers not among them."""
    observers = {each.get("as") or each["use"].rpartition("/")[2] for each in tables.get("observers", [])}
    # where another kind has a component of that name, the observer's has its kind before it
    observers = {f"observer.{name}" if f"observer.{name}" in results.providers else name for name in observers}
    used = {provider for name, provider in results.providers.items() if name not in observers}
    files = [str(file).replace("\\", "/").rsplit("/", 1)[-1] for file in tables.get("plugins", [])]
    return [file for file in files if file.replace("#sha256:", " sha256:") in used]


def is_place_of_images(key: str, value: str) -> bool:
    """Whether a setting, a value as JSON, says where images lie."""
    return key.startswith("data.") and value.startswith('"/')


def digest_of(settings: Mapping[str, str]) -> str:
    """SHA-256 of settings, in any order; where images lie, of which results have a digest of their own, has no part."""
    settings = {key: value for key, value in settings.items() if not is_place_of_images(key, value)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Epoch:
    """A line of metrics.jsonl: the means of the loss's terms over an epoch, and the rate at its beginning."""

    step: int
    phase: str
    terms: Mapping[str, float]
    lr: float


def _epoch(line: str) -> Epoch | None:
    """The epoch that a line tells of; None: it is none, such as one that was being written when the run was killed."""
    try:
        row = json.loads(line)
        terms = {str(name): float(value) for name, value in row["terms"].items()}
        epoch = Epoch(int(row["step"]), str(row["phase"]), terms, float(row["lr"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return epoch if all(map(math.isfinite, (*terms.values(), epoch.lr))) else None


class RecordedRun:
    """A run directory, finished or not, or the results.json of one; read when it is asked for.

    Attributes:
        path: the directory, or the file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """Whether there is a run."""
        return os.path.isfile(self.path / "resolved.toml")

    def check_is_whole(self) -> None:
        """See that checkpoints have a recipe.

        Raises:
            CheckpointRefused: resolved.toml is gone.
        """
        file = self.path / "resolved.toml"
        if not self.exists and os.path.isdir(self.path) and any(self.path.glob("checkpoints/step-*/manifest.json")):
            raise CheckpointRefused(f"{file}: is gone, and there are checkpoints; put it back or start anew")

    @property
    def begun(self) -> bool:
        """Whether it has finished a step, or should have; of a path that is no run nothing is known, and it has."""
        return self.finished or not self.exists or os.path.isfile(self.path / "results.json")

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.exists and os.path.isfile(self.path / "DONE")

    @cached_property
    def results(self) -> Results:
        """Its results so far.

        Of results that have left their directory there is no digest.

        Raises:
            UserError: there are none, they cannot be read, or they are not in the format of this version.
            CheckpointRefused: they were changed since they were written.
        """
        file = self.path / "results.json" if os.path.isdir(self.path) else self.path
        if not os.path.isfile(file):  # which takes a name that no file can have, too
            if self.finished:
                raise CheckpointRefused(f"{file}: is gone, and the run had ended; put it back or run it anew")
            hint = "the run has not finished a step" if self.exists else "no run directory"
            raise UserError(f"{self.path}: no results.json; {hint}")
        again = "" if self.finished else f", or remove it: {command('resume', self.path)} writes it again"
        summed = self.exists or os.path.isfile(file.with_name(SUMS))
        with told_of_reading(file):
            back = f"put back what the run has written{again}"
            content = read_summed(file, back, LARGE) if summed else bounded(file, LARGE)
        try:
            return Results.from_json(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{file}: not the results of a run ({type(error).__name__}); name another") from error

    @property
    def data_facts(self) -> dict[str, Any] | None:
        """What it has recorded of its data set; None: nothing yet."""
        return self.results.data if os.path.isfile(self.path / "results.json") else None

    @property
    def class_names(self) -> list[str]:
        """The classes it has learned, in class order."""
        return self.results.class_names[: self.results.steps[-1].seen] if self.results.steps else []

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Its resolved recipe as plain tables, of which no more is known than a list of plug-ins; empty for results
        alone.

        Raises:
            CheckpointRefused: resolved.toml is damaged.
            UserError: it cannot be read.
        """
        file = self.path / "resolved.toml"
        if not os.path.isfile(file):
            return {}
        content = read_summed(file, "restore it or start the run anew")
        try:
            tables = tomllib.loads(content.decode())
            if not isinstance(tables["plugins"], list):
                raise TypeError("plugins is no list")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointRefused(f"{file}: damaged ({one_line(error)}); restore it or start the run anew") from error
        return tables

    @cached_property
    def epochs(self) -> list[Epoch]:
        """What it has logged of its training; empty for results alone.

        Raises:
            UserError: it cannot be read, or is too large.
        """
        file = self.path / "metrics.jsonl"
        if not os.path.isfile(file):
            return []
        with told_of_reading(file), file.open(encoding="utf-8", errors="replace") as lines:
            check_size(file, LARGE)
            return [epoch for line in iter(partial(lines.readline, SMALL), "") if (epoch := _epoch(line))]

    @property
    def environment(self) -> dict[str, Any]:
        """The machine and software that made its numbers; empty where that is not known."""
        file = self.path / "env.json"
        try:
            facts = json.loads(bounded(file)) if os.path.isfile(file) else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}

    @cached_property
    def settings(self) -> dict[str, str]:
        """What decides its numbers, as `settings_of` has it; empty for results that have left their directory."""
        home = RecordedRun(self.path.parent) if self.path.name == "results.json" else self
        return settings_of(home.tables, home.results) if home.tables else {}

    @property
    def settings_digest(self) -> str:
        """The digest of its settings, as results alone have it too; empty: not known."""
        return digest_of(self.settings) if self.settings else self.results.settings

    @cached_property
    def recipe(self) -> Resolved:
        """Its resolved recipe, validated, its plug-in files those that were kept.

        Raises:
            UserError: there is no run, or a component is not there any more.
            CheckpointRefused: resolved.toml is damaged.
        """
        return self.recipe_with({})

    def recipe_with(self, settings: Mapping[str, object]) -> Resolved:
        """The same with other settings."""
        from lwmfw.recipe.load import load_recipe

        if not self.tables:
            self.check_is_whole()
            raise UserError(f"{shown(str(self.path), 1000)}: no run directory; name one that holds a resolved.toml")
        return load_recipe(self.path / "resolved.toml", settings)

    def checkpoint(self, step: int | None = None) -> Checkpoint:
        """What was kept after its last finished step, or after another.

        Raises:
            UserError: nothing was kept; names the steps that were.
            CheckpointRefused: it is damaged.
        """
        from lwmfw.record import checkpoint

        kept = checkpoint.load(self.path / "checkpoints", step)
        if kept is not None:
            return kept
        steps = ", ".join(map(str, checkpoint.steps(self.path / "checkpoints")))
        if not steps:
            raise UserError(f"{self.path}: holds no checkpoint; name a run directory that still has its checkpoints")
        raise UserError(f"{self.path}: holds no checkpoint of step {step}; there are those of {steps}")
