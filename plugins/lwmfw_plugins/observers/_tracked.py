"""What trackers tell other programs of a run.

A tracker has no memory: metrics.jsonl and results.json, which an interrupted run takes back to where it goes on, are
the record, and a tracker that begins tells it from the first epoch on, in place of what an earlier start has told.
So a run that was interrupted anywhere leaves the points of one that was not.
"""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lwmfw import hookimpl

if TYPE_CHECKING:
    from lwmfw import Results, Run


@dataclass(frozen=True)
class Point:
    """What was measured at one place of a run.

    Attributes:
        axis: "epoch": counted over all steps of the run, from 1; "step": the step behind which it was measured.
        at: where on the axis.
        values: tag -> value.
    """

    axis: Literal["epoch", "step"]
    at: int
    values: dict[str, float]


def epoch_point(epoch: int, means: Mapping[str, float], rate: float, images_per_s: float) -> Point:
    """What an epoch has come to; `epoch` counts those of all steps."""
    terms = {f"terms/{term}": mean for term, mean in means.items()}
    return Point("epoch", epoch, terms | {"training/lr": rate, "training/images_per_s": images_per_s})


def step_point(results: Results) -> Point:
    """What the last step of results has come to, and all steps up to it; what was not measured is left out."""
    step = results.steps[-1]
    measured = {
        **{f"accuracy/{who}": value for who, value in step.accuracy.items()},
        **{f"average_accuracy/{who}": value for who, value in results.average_incremental_accuracy.items()},
        **{f"forgetting/{who}": value for who, value in results.forgetting.items()},
        "memory/bytes": step.memory_bytes,
        "memory/exemplars": step.exemplars,
    }
    return Point("step", step.step, {tag: float(value) for tag, value in measured.items() if value is not None})


def recorded(rows: Sequence[Mapping[str, Any]], results: Results) -> Iterator[Point]:
    """The points of a run so far, step by step.

    Args:
        rows: of metrics.jsonl; none of a step that another run has trained.
        results: of the finished steps; rows go at most one step further.
    """
    before = 0
    for number in range(1, len(results.steps) + 2):
        for epoch, row in enumerate((row for row in rows if row["step"] == number), before + 1):
            yield epoch_point(epoch, row["terms"], row["lr"], row["images_per_s"])
        if number <= len(results.steps):
            yield step_point(results.after(number))
            before += results.steps[number - 1].epochs


def settings(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Dotted key -> value of a resolved recipe, as behind `--set`; arrays of what has no name as text."""
    for key, value in tables.items():
        place = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from settings(value, place)
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) and "as" in each for each in value):
            yield from settings({each["as"]: each for each in value}, place)
        else:
            yield place, value if isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables of the process while a library is called that reads them; behind it they are what they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Tracker(ABC):
    """The hooks of a tracker: it begins before the first step that is to be learned here, and tells what comes."""

    def __init__(self) -> None:
        self._begun = False
        self._epochs = 0  # of all steps so far

    @abstractmethod
    def begin(self, tracked: Tracked) -> None:
        """Open what points go to, as empty of this run as if it was never told of."""

    @abstractmethod
    def put(self, point: Point) -> None:
        """Tell a point."""

    @abstractmethod
    def end(self, complete: bool) -> None:
        """Close it; whether the run has come to its end."""

    @hookimpl
    def before_step(self, run: Run, name: str) -> None:
        """Begin with what is recorded."""
        if run.directory is None:  # as in a trial of `lwmfw search`
            return
        if not self._begun:
            self._begin(run, name)
        finished = run.results.steps
        inside = Counter(row["step"] for row in run.directory.epochs())[len(finished) + 1]
        self._epochs = sum(step.epochs for step in finished) + inside

    @hookimpl
    def after_epoch(self, means: Mapping[str, float], rate: float, images_per_s: float) -> None:
        """Tell what the epoch has come to."""
        self._epochs += 1
        if self._begun:
            self.put(epoch_point(self._epochs, means, rate, images_per_s))

    @hookimpl
    def after_step(self, run: Run) -> None:
        """Tell what the step has come to."""
        if self._begun:
            self.put(step_point(run.results))

    @hookimpl
    def after_run(self, run: Run, results: Results, name: str) -> None:
        """Close; tell first what is recorded, where a run that was killed behind its last step had no more to learn."""
        if results.complete and run.directory and not self._begun:
            self._begin(run, name)
        if self._begun:
            self._begun = False
            self.end(results.complete)

    def _begin(self, run: Run, name: str) -> None:
        assert run.directory is not None  # noqa: S101
        folder = run.directory.folder(name)
        if not (folder / "id").is_file():
            run.directory.write(f"{name}/id", uuid.uuid4().hex.encode())
        title = f"{run.recipe.name}-{folder.parent.name}"
        self.begin(Tracked(title, (folder / "id").read_text(), folder, run.directory.tables))
        self._begun = True
        for point in recorded(run.directory.epochs(), run.results):
            self.put(point)


@dataclass(frozen=True)
class Tracked:
    """A run as trackers call it.

    Attributes:
        title: of recipe and run directory.
        id: its own for ever, 32 hexadecimal digits.
        folder: of the tracker, in the run directory.
        tables: its resolved recipe.
    """

    title: str
    id: str
    folder: Path
    tables: dict[str, Any]
