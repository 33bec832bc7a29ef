"""console: progress on stderr; a live line on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lwmfw import Component, Observer, Options, hookimpl

if TYPE_CHECKING:
    from lwmfw import Batch, Phase, Results, Run, Step, StepResult


class ConsoleObserver:
    """Shows step, phase, epoch, every term by name, images/s and the time left."""

    def __init__(self, options: Options) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[numbers]}"),
            console=self.console, transient=True,
        )  # fmt: skip
        self.task = TaskID(0)
        self.updates = self.updates_left = self.images = 0
        self.seconds_per_update = 0.0
        self.epoch_began = 0.0
        self.numbers, self.begun = "", False

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Say what is about to run."""
        recipe, data = run.recipe, run.data
        precision = "bf16" if run.model.bf16 else "fp32"
        self._print(
            f"{recipe.name}, seed {recipe.seed}: {run.steps[-1].seen_classes.stop} classes of {recipe.data.use} in "
            f"{len(run.steps)} steps, {recipe.backbone.use}, {precision} on {run.device.type}"
        )
        if data.skipped:
            self._print(f"skipped because they cannot be read: {', '.join(data.skipped)}")
        if run.directory:
            self._print(f"recorded in {run.directory.path}")

    @hookimpl
    def before_step(self, run: Run, step: Step) -> None:
        """Start the step's progress."""
        finished = len(run.results.steps)
        if finished and not self.begun:
            origin = run.recipe.origin
            begun = origin and finished == run.known_steps
            self._print(f"goes on from {origin.run}" if origin and begun else f"resumed after step {finished}")
        self.begun = True
        self.updates = run.updates(step)
        self.updates_left = sum(run.updates(later) for later in run.remaining_steps)
        self.numbers, self.images, self.epoch_began = "", 0, time.perf_counter()
        self.phase = run.phases(step)[0]
        if self.live:
            doing = self._where(step, 1) if self.updates else f"step {step.index}/{step.total}  reading images"
            self.task = self.progress.add_task(doing, total=self.updates or None, numbers="")
            self.progress.start()

    @hookimpl
    def group_parameters(self, phase: Phase) -> None:
        """Note the phase that begins."""
        self.phase = phase

    @hookimpl
    def after_update(self, batch: Batch) -> None:
        """Advance, without asking the device for anything."""
        self.updates_left -= 1
        self.images += len(batch.labels)
        if self.live:
            left = f"  {_duration(self.updates_left * self.seconds_per_update)} left" if self.numbers else ""
            self.progress.update(self.task, advance=1, numbers=self.numbers + left)

    @hookimpl
    def after_epoch(self, step: Step, epoch: int, means: Mapping[str, float]) -> None:
        """Show the means of the terms, which are on the host by now."""
        now = time.perf_counter()
        seconds, self.epoch_began = now - self.epoch_began, now
        updates = -(-self.images // self.phase.batch_size)
        self.seconds_per_update = seconds / max(1, updates)
        terms = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        self.numbers = f"{terms}  {self.images / seconds:,.0f} images/s"
        self.images = 0
        if self.live:
            self.progress.update(self.task, description=self._where(step, min(epoch + 1, self.phase.epochs)))
        else:
            left = _duration(self.updates_left * self.seconds_per_update)
            self._print(f"{self._where(step, epoch)}  {self.numbers}  {left} left")

    @hookimpl
    def after_step(self, step: Step, result: StepResult) -> None:
        """Show what the step came to."""
        if self.live:
            self.progress.remove_task(self.task)
        for who, accuracy in result.accuracy.items():
            groups = " ".join(map(_measure, result.accuracy_by_step[who]))
            named = f" by {who}" if len(result.accuracy) > 1 else ""
            self._print(
                f"step {step.index}/{step.total}: accuracy{named} {_measure(accuracy)} on {result.seen} classes "
                f"(by step {groups}), {result.train_seconds:.1f} s{_certificate(result.readouts.get(who))}"
            )

    @hookimpl
    def after_run(self, results: Results) -> None:
        """Leave the terminal as it was."""
        self.progress.stop()

    def _where(self, step: Step, epoch: int) -> str:
        return f"step {step.index}/{step.total}  {self.phase.name}  epoch {epoch}/{self.phase.epochs}"

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)


def _measure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _certificate(said: Mapping[str, Any] | None) -> str:
    """What a read-out from sums is worth: as if all was learned at once, or how far the backbone has left its sums."""
    if said is None or "exact" not in said:
        return ""
    if said["exact"]:
        return ", exact"
    if "drift" in said:
        return f", sums carried over, drift {said['drift']:.3f}"
    return ", sums of features that the backbone no longer gives: set transport = true"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("console", ConsoleObserver)
