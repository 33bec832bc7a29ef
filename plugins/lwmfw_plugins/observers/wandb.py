"""wandb: a run of Weights & Biases in the run directory, sent to a server only if the recipe says so.

`pip install "lwmfw[wandb]"`; `wandb sync RUN/wandb/wandb/offline-run-*` sends what was written offline.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lwmfw import Component, Field, Observer, Options, hookimpl
from lwmfw_plugins._installed import require
from lwmfw_plugins.observers._tracked import Point, Tracked, Tracker, environment

if TYPE_CHECKING:
    import wandb


class WandbOptions(Options):
    """Options of wandb."""

    mode: Literal["offline", "online"] = Field(
        "offline", description="offline: into the run directory alone; online: to the server that wandb is logged in to"
    )
    project: str = Field("lwmfw", min_length=1, max_length=128, description="the project that runs are shown in")


class Wandb(Tracker):
    """Writes a run for Weights & Biases, offline unless told otherwise (needs the extra lwmfw[wandb]).

    What the library reports besides - errors of its own, the machine's load, code and repository - is switched off.
    """

    run: wandb.Run

    def __init__(self, options: WandbOptions) -> None:
        super().__init__()
        require("wandb")
        self.options = options

    def begin(self, tracked: Tracked) -> None:
        """A new offline run in place of that of an earlier start; online the same, which takes no point twice."""
        self.folder = tracked.folder
        self.known, self.count = set[str](), 0
        for earlier in tracked.folder.glob("wandb/offline-run-*"):
            shutil.rmtree(earlier)
        quiet = {"silent": True, "console": "off", "save_code": False, "disable_git": True, "x_disable_stats": True}
        with _apart(tracked.folder):
            import wandb

            self.run = wandb.init(
                project=self.options.project, name=tracked.title, id=tracked.id, config=tracked.tables, resume="allow",
                settings=wandb.Settings(mode=self.options.mode, root_dir=str(tracked.folder), **quiet),
            )  # fmt: skip

    def put(self, point: Point) -> None:
        """A row of the run's history, in order: one that a server has already is not taken again."""
        with _apart(self.folder):
            for tag in point.values.keys() - self.known:
                self.run.define_metric(tag, step_metric=point.axis)
            self.run.log({point.axis: point.at, **point.values}, step=self.count)
        self.known |= point.values.keys()
        self.count += 1
        self._keep_apart()

    def end(self, complete: bool) -> None:
        """Finish it."""
        with _apart(self.folder):
            self.run.finish(exit_code=0 if complete else 1)
        self._keep_apart()

    def _keep_apart(self) -> None:
        """Remove the link to the log of the process, which may lie in another directory, from where nothing goes on."""
        for log in self.folder.glob("wandb/*/logs/*core.log"):  # a wildcard, which finds a link to nowhere too
            log.unlink(missing_ok=True)


def _apart(folder: Path) -> AbstractContextManager[None]:
    """While the library is called: it reports no errors of its own, for which it would ask a network when it is loaded,
    and its cache lies in the run directory."""
    return environment(WANDB_ERROR_REPORTING="false", WANDB_CACHE_DIR=str(folder / "cache"))


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("wandb", Wandb, WandbOptions)
