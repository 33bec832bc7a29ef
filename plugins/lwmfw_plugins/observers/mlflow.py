"""mlflow: a run of MLflow, in a database of the run directory or wherever the recipe says.

`pip install "lwmfw[mlflow]"` brings what writes; `mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db`, of the
whole MLflow, shows it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Observer, Options, UserError, hookimpl
from lwmfw_plugins._installed import require
from lwmfw_plugins.observers._tracked import Point, Tracked, Tracker, environment, settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

AT_ONCE = 100
"""Parameters that MLflow takes in one call."""
LONGEST = 6000
"""Letters that it takes of one."""


class MlflowOptions(Options):
    """Options of mlflow."""

    uri: str = Field(
        "", max_length=1000, description="tracking server or database, as MLflow takes it; empty: in the run directory"
    )
    experiment: str = Field("lwmfw", min_length=1, max_length=250, description="what runs are put into")


class Mlflow(Tracker):
    """Writes a run for MLflow, into the run directory unless told otherwise (needs the extra lwmfw[mlflow]).

    MLflow's own report of how it is used is switched off.
    """

    client: MlflowClient

    def __init__(self, options: MlflowOptions) -> None:
        super().__init__()
        require("mlflow", "mlflow", "sqlalchemy", "alembic")
        self.options = options

    def begin(self, tracked: Tracked) -> None:
        """A new run in place of that of an earlier start, which goes where MLflow keeps what is deleted."""
        with _quiet():
            from mlflow import MlflowClient
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException

            uri, name = self.options.uri or database(tracked.folder / "mlflow.db"), self.options.experiment
            artifacts = None if self.options.uri else (tracked.folder / "artifacts").as_uri()
            self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            with suppress(MlflowException):  # it is there, made by another run perhaps a moment ago
                self.client.create_experiment(name, artifact_location=artifacts)
            experiment = self.client.get_experiment_by_name(name).experiment_id
            for earlier in self.client.search_runs([experiment], f"tags.lwmfw = '{tracked.id}'"):
                self.client.delete_run(earlier.info.run_id)
            made = self.client.create_run(experiment, run_name=tracked.title, tags={"lwmfw": tracked.id})
            self.run_id: str = made.info.run_id
            values = [Param(_key(key), str(value)[:LONGEST]) for key, value in settings(tracked.tables)]
            for first in range(0, len(values), AT_ONCE):
                self.client.log_batch(self.run_id, params=values[first : first + AT_ONCE])

    def put(self, point: Point) -> None:
        """A metric for each tag."""
        now = round(time.time() * 1000)
        with _quiet():
            from mlflow.entities import Metric

            values = [Metric(_key(tag), value, now, point.at) for tag, value in point.values.items()]
            self.client.log_batch(self.run_id, metrics=values)

    def end(self, complete: bool) -> None:
        """Say how the run has ended."""
        with _quiet():
            self.client.set_terminated(self.run_id, "FINISHED" if complete else "FAILED")


@contextmanager
def _quiet() -> Iterator[None]:
    """While MLflow is called: it reports nothing of its use, and that a database is made is no news."""
    with environment(MLFLOW_DISABLE_TELEMETRY="true"):  # read when the library is loaded, and later
        import mlflow  # noqa: F401 - which sets its loggers itself

        loggers = [logging.getLogger(library) for library in ("mlflow", "alembic")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def database(file: Path) -> str:
    """The address of a database of SQLite, whatever letters its path has.

    Raises:
        UserError: it has one that SQLAlchemy, before 2.1, cannot be told.
    """
    from sqlalchemy.engine import URL, make_url

    # with the driver named, MLflow makes no folders, which would be those of the address as it is written
    address: str = URL.create("sqlite+pysqlite", database=str(file)).render_as_string()
    if make_url(address).database != str(file):
        raise UserError(f"{file.parent}: SQLAlchemy cannot open a database there; name a run directory without ?")
    return address


def _key(name: str) -> str:
    """A name of letters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("mlflow", Mlflow, MlflowOptions)
