"""console: progress on stderr; a live line on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lwmfw import Component, Observer, Options, harmless, hookimpl
from lwmfw_plugins.observers._line import BAR, duration, fitted

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Batch, Phase, Results, Run, Step, StepResult


LOGGER = logging.getLogger("lwmfw")  # `lwmfw run --log` and other programs listen to it
SETTLED = 2.0  # seconds after which the pace of an epoch says how long it will take
LOOK = {True: 5.0, False: 60.0}  # seconds between two looks at the terms within an epoch, on a terminal and elsewhere


class ConsoleObserver:
    """Shows step, phase, epoch, the time left, images/s, every term by name, and what else takes time.

    Within an epoch the time left and images/s come of the clock and of the batches that were given to the device, and
    what the terms are is asked of it every few seconds alone: no batch waits for the device.
    """

    def __init__(self, options: Options) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal
        self.bar = BarColumn(BAR)
        self.progress = Progress(
            TextColumn("{task.description}"), self.bar, TextColumn("{task.fields[numbers]}"),
            console=self.console, transient=True,
        )  # fmt: skip
        self.task = TaskID(0)
        self.updates_to_come = self.updates_left = 0
        self.seconds_per_update = 0.0
        self.images_per_s, self.terms = 0.0, dict[str, float]()
        self.begun = self.trained = False

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
        self.begun, self.trained = True, False
        phases, self.position = run.phases(step), run.position
        self.updates_of = {phase.name: run.updates(step, phase) for phase in phases}
        self.updates_to_come = self.updates_left = sum(run.updates(later) for later in run.remaining_steps)
        self.images_per_s, self.terms = 0.0, {}
        self.fits = [readout.use for readout in run.recipe.readouts] != ["cnn"]
        self.last = phases[-1].name
        self.first, self.entered, self.inside = next((p.name for p in phases if p.epochs), ""), "", False
        self._begin(phases[0])
        updates = run.updates(step)
        if self.live:
            self.task = self.progress.add_task("", total=updates or None, numbers="")
        if updates:
            self._show(step)
        else:
            self._doing(step, "reading images" + ", fitting read-outs" * self.fits)
        if self.live:
            self.progress.start()

    @hookimpl
    def group_parameters(self, phase: Phase) -> None:
        """Note the phase that begins."""
        self.entered = self.entered or phase.name
        self._begin(phase)

    def _begin(self, phase: Phase) -> None:
        self.phase, self.means_known = phase, False
        earlier = list(self.updates_of).index(phase.name)
        self.updates_before = sum(list(self.updates_of.values())[:earlier])
        self.batches = self.updates_of[phase.name] // max(1, phase.epochs)
        self._begin_epoch(1)

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.epoch_began = self.looked = time.perf_counter()
        self.updates = self.images = 0

    def _reached(self, step: Step, epoch: int, batch: int | None = None) -> None:
        """Note how far the step has come, which is more than is seen here where a run goes on from inside.

        Args:
            step: which.
            epoch: of the phase.
            batch: how many of its batches are learned; None: all.
        """
        done = self.updates_before + self.batches * (epoch - 1) + (self.batches if batch is None else batch)
        self.epoch, self.updates_left = epoch, max(0, self.updates_to_come - done)
        if self.live:
            self.progress.update(self.task, completed=done)
        if not self.inside and (self.entered != self.first or epoch > 1 or batch != 1):
            at = f"  batch {batch}" if batch else ""
            self._show(step)
            self._print(f"goes on inside step {step.index}/{step.total}  {self._epoch()}{at}")
        self.inside = True

    @hookimpl
    def after_update(self, step: Step, batch: Batch, terms: Mapping[str, Tensor]) -> None:
        """Advance, and look at the terms once in a while."""
        self._reached(step, self.position.epoch, self.position.batch)
        self.updates += 1
        self.images += len(batch.labels)
        now = time.perf_counter()
        seconds = now - self.epoch_began
        if seconds < SETTLED or now - self.looked < LOOK[self.live]:
            return
        self.looked = now
        self.seconds_per_update, self.images_per_s = seconds / self.updates, self.images / seconds
        if not (self.live and self.means_known):
            self.terms = {name: float(value) for name, value in terms.items()}
        if self.live:
            self._show(step)
        else:
            self._print(self._line(step, f"  batch {self.position.batch}"))

    @hookimpl
    def after_epoch(self, step: Step, epoch: int, means: Mapping[str, float], images_per_s: float) -> None:
        """Show the means of the terms, which are on the host by now."""
        self._reached(step, epoch)
        if self.updates:  # none, where a run goes on from the end of an epoch
            self.seconds_per_update = (time.perf_counter() - self.epoch_began) / self.updates
        self.images_per_s, self.terms, self.means_known = images_per_s, dict(means), True
        if self.live:
            LOGGER.info(self._line(step))
        else:
            self._print(self._line(step))
        if epoch < self.phase.epochs:
            self._begin_epoch(epoch + 1)
            self._show(step)
        elif self.fits and self.phase.name == self.last:
            self._doing(step, "fitting read-outs")

    @hookimpl
    def before_memory(self, step: Step) -> None:
        """Say that exemplars are chosen, which a phase of balanced images waits for too."""
        self._doing(step, "choosing exemplars" + ", evaluating" * self.trained)

    @hookimpl
    def after_training(self, run: Run, step: Step) -> None:
        """Say what comes next."""
        self.trained = True
        if run.memory is None:
            self._doing(step, "evaluating")

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

    def _doing(self, step: Step, what: str) -> None:
        """Say what takes time and is no training."""
        line = f"step {step.index}/{step.total}  {what}"
        if self.live:
            LOGGER.info(line)
            self._put([(line, ""), (what, "")], [])
        else:
            self._print(line)

    def _show(self, step: Step) -> None:
        """The line of a terminal, of the training that goes on."""
        if not self.live:
            return
        phase, left = self.phase, self._left()
        where = f"step {step.index}/{step.total}  {self._epoch()}"
        shorter = f"{step.index}/{step.total}  {phase.name}  {self.epoch}/{phase.epochs}"
        shortest = f"{step.index}/{step.total}  {self.epoch}/{phase.epochs}"
        forms = [(where, f"{left} left"), (shorter, f"{left} left"), (shortest, left)]
        self._put(forms if left else [(head, "") for head, _ in forms], self._numbers())

    def _put(self, forms: Sequence[tuple[str, str]], more: Sequence[str]) -> None:
        head, self.bar.bar_width, tail = fitted(self.console.width, forms, more)
        self.progress.update(self.task, description=head, numbers=tail)

    def _line(self, step: Step, batch: str = "") -> str:
        """A plain line of the epoch that ends, or of a batch within it."""
        where = f"step {step.index}/{step.total}  {self._epoch()}{batch}"
        pace, *terms = self._numbers()
        return "  ".join([where, *terms, pace, f"{self._left() or '0:00'} left"])

    def _epoch(self) -> str:
        return f"{self.phase.name}  epoch {self.epoch}/{self.phase.epochs}"

    def _numbers(self) -> list[str]:
        pace = [f"{self.images_per_s:,.0f} images/s"] if self.images_per_s else []
        return [*pace, *(f"{name} {value:.4g}" for name, value in self.terms.items())]

    def _left(self) -> str:
        """The time that the updates of all steps will take; empty: not known yet."""
        return duration(self.updates_left * self.seconds_per_update) if self.seconds_per_update else ""

    def _print(self, line: str) -> None:
        line = harmless(line)
        self.console.print(line, markup=False, soft_wrap=True)
        LOGGER.info(line)


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


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Observer("console", ConsoleObserver)
