"""trackio: a run of Trackio, in a database of the run directory or of a folder that runs have in common.

`pip install "lwmfw[trackio]"`; `TRACKIO_DIR=RUN/trackio trackio show` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lwmfw import Component, Field, Folder, Observer, Options, hookimpl
from lwmfw_plugins._installed import require
from lwmfw_plugins.observers._tracked import Point, Tracked, Tracker


class TrackioOptions(Options):
    """Options of trackio."""

    folder: Folder = Field("", description="where Trackio's databases lie; empty: in the run directory")
    project: str = Field(
        "lwmfw", pattern=r"^[A-Za-z0-9_-]+$", max_length=100, description="the database that runs are put into"
    )


class Trackio(Tracker):
    """Writes a run for Trackio, into a local database (needs the extra lwmfw[trackio]).

    It writes as Trackio's own runs do, without one: those ask a network who their user is.
    """

    def __init__(self, options: TrackioOptions) -> None:
        super().__init__()
        require("trackio")
        self.options = options

    def begin(self, tracked: Tracked) -> None:
        """A new run in place of that of an earlier start."""
        self.run = tracked
        self.config: dict[str, Any] | None = tracked.tables
        with self._storage() as storage:
            storage.delete_run(self.options.project, tracked.title, run_id=tracked.id)

    def put(self, point: Point) -> None:
        """A row of the database; the first has the recipe beside it."""
        with self._storage() as storage:
            storage.bulk_log(
                self.options.project, self.run.title, [point.values], [point.at], config=self.config, run_id=self.run.id
            )
        self.config = None

    def end(self, complete: bool) -> None:
        """Nothing is open."""

    @contextmanager
    def _storage(self) -> Iterator[Any]:
        """What writes databases, into the folder wanted; it knows one for a process."""
        from trackio import sqlite_storage

        known, folder = sqlite_storage.TRACKIO_DIR, Path(self.options.folder or self.run.folder)
        folder.mkdir(parents=True, exist_ok=True)
        sqlite_storage.TRACKIO_DIR = folder
        try:
            yield sqlite_storage.SQLiteStorage
        finally:
            sqlite_storage.TRACKIO_DIR = known


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("trackio", Trackio, TrackioOptions)
