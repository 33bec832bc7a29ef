"""What a search decides: what is tried next, when a step is settled, and what one recipe makes of it. No training here.

The procedure is drawn in trials.py, which makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lwmfw.errors import RunFailed, UserError, did_you_mean, shown
from lwmfw.recipe.load import Resolved
from lwmfw.recipe.scenario import Step
from lwmfw.recipe.settings import flat

if TYPE_CHECKING:
    from lwmfw.record.checkpoint import Checkpoint

TOLERANCE = 0.01
"""How far below the best a learning rate may be and still count as one that learns the step."""

Stage = Literal["plasticity", "stability"]


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        rates: candidate learning rates, above 0.
        trade_offs: dotted key -> the recipe's value, as from `trade_offs_of`.
        start: what those values are multiplied by for the first trial, above 0.
        keep: share of A* that a step has to reach, between 0 and 1.
        decay: factor from one trial to the next, between 0 and 1.
        trials: how often trade-offs are tried at most, from 1.
        steps: how many steps are searched at most; 0: all.
        validation: share of the training images that is held out, between 0 and 1.
    """

    rates: Sequence[float]
    trade_offs: Mapping[str, float]
    start: float = 10.0
    keep: float = 0.8
    decay: float = 0.5
    trials: int = 7
    steps: int = 2
    validation: float = 0.1

    def __post_init__(self) -> None:
        for name in ("keep", "decay", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name):g}: not between 0 and 1; choose a share")
        if not 0 < self.start < math.inf:
            raise UserError(f"--start {self.start:g}: not above 0; choose a factor such as 10")


@dataclass(frozen=True)
class Trial:
    """What one trial came to.

    Attributes:
        step: counted from 1.
        stage: what it was made for.
        lr: learning rate.
        trade_offs: dotted key -> value; empty in the plasticity stage.
        wanted: the accuracy on the new classes below which it is refused; 0 in the plasticity stage.
        accuracy_new: 0..1, of the new classes' held-out images, decided among all seen classes; None: the loss was not
            finite.
        accuracy_seen: the same of all seen classes' images.
        seconds: how long it took.
        after: what a next step goes on from; None as above.
    """

    step: int
    stage: Stage
    lr: float
    trade_offs: dict[str, float]
    wanted: float
    accuracy_new: float | None
    accuracy_seen: float | None
    seconds: float = 0.0
    after: Checkpoint | None = field(default=None, repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """The line of search.jsonl."""
        return {name: value for name, value in vars(self).items() if name != "after"}

    def line(self, total: int) -> str:
        """What is said of it when it has ended; `total`: steps of the run."""
        wanted = f" of {self.wanted:.3f} wanted" if self.wanted else ""
        outcome = (
            f"new {self.accuracy_new:.3f}{wanted}  seen {self.accuracy_seen:.3f}"
            if self.accuracy_new is not None
            else "the loss is not finite"
        )
        return f"{self.heading(self.stage, total)}  {outcome}  {self.seconds:.1f} s"

    def heading(self, word: str, total: int) -> str:
        """Its step, a word for it, and what it was trained with."""
        values = "".join(f"  {_short(key)} {value:g}" for key, value in self.trade_offs.items())
        return f"step {self.step}/{total}  {word:<10}  lr {self.lr:g}{values}"


@dataclass(frozen=True)
class Found:
    """What one step wanted.

    Attributes:
        best: A*, the best accuracy of fine-tuning on the new classes.
        accepted: the trial from which the next step goes on.
        kept: whether it has the wanted accuracy; if none had, the last trial is accepted.
        trials: how many the step took.
    """

    best: float
    accepted: Trial
    kept: bool
    trials: int

    def line(self, total: int) -> str:
        """What is said of it when the step is settled; `total`: steps of the run."""
        short = "" if self.kept else f"  (no trial reaches {self.accepted.wanted:.3f}: the last one)"
        return self.accepted.heading("accepted", total) + short


def parse_rates(text: str) -> list[float]:
    """`0.1,0.05` as numbers.

    Raises:
        UserError: one is no number above 0, or stands twice.
    """
    rates: list[float] = []
    for part in text.split(","):
        try:
            rate = float(part)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf or rate in rates:
            fault = "stands twice" if rate in rates else "is no number above 0"
            raise UserError(f"--lr {shown(text)}: '{shown(part.strip())}' {fault}; write --lr 0.1,0.05,0.02")
        rates.append(rate)
    return rates


def trade_offs_of(resolved: Resolved, keys: Sequence[str]) -> dict[str, float]:
    """Dotted keys of what is traded off -> the recipe's values.

    Args:
        resolved: the recipe.
        keys: as the user names them; none: the option `weight` of every penalty that has one above 0.

    Raises:
        UserError: a key that is not in the recipe's penalties or no number above 0, or penalties of which none has a
            weight.
    """
    known = dict(flat({"penalties": resolved.tables()["penalties"]}))
    if not keys:
        keys = [key for key, value in known.items() if key.endswith(".weight") and _is_number(value) and value > 0]
        if known and not keys:
            raise UserError("no penalty has an option 'weight' above 0; name what to search with --trade-off")
    values = {}
    for key in keys:
        who = f"--trade-off {shown(key)}"
        if key not in known:
            numbers = [name for name, value in known.items() if _is_number(value)]
            hint = did_you_mean(key, numbers) or f"; choose of {', '.join(numbers) or 'none, it has no penalties'}"
            raise UserError(f"{who}: no such key in the recipe's penalties{hint}")
        if not _is_number(known[key]):
            raise UserError(f"{who}: is {shown(repr(known[key]))}, no number; name a weight")
        if known[key] <= 0:
            raise UserError(f"{who}: is {known[key]:g}, which no factor changes; set it above 0")
        values[key] = float(known[key])
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ladder(search: Search) -> list[dict[str, float]]:
    """The trade-offs of one trial after the other; empty if there are none."""
    factors = [search.start * search.decay**n for n in range(search.trials)] if search.trade_offs else []
    return [{key: value * factor for key, value in search.trade_offs.items()} for factor in factors]


def rungs_of(step: Step, rungs: Sequence[dict[str, float]]) -> Sequence[dict[str, float]]:
    """The trade-offs that are tried in a step; the first has nothing to forget."""
    return rungs if step.index > 1 else []


def most_trials(search: Search, rungs: Sequence[dict[str, float]]) -> int:
    """How many trials a step takes at most."""
    return len(search.rates) + len(rungs)


Measure = Callable[[Stage, float, dict[str, float], float], Trial]
"""Makes a trial of a stage, a learning rate, trade-offs and the accuracy that is wanted."""


def settle(search: Search, rungs: Sequence[dict[str, float]], measure: Measure) -> Found:
    """Search one step.

    Args:
        search: rates and the share to keep.
        rungs: trade-offs to be tried one after the other; empty: the learning rate is all there is to find.
        measure: makes a trial.

    Raises:
        RunFailed: no trial of a stage had a finite loss.
    """
    tried = [measure("plasticity", rate, {}, 0.0) for rate in search.rates]
    best, chosen = learns_best(tried)
    if not rungs:
        return Found(best, chosen, True, len(tried))
    wanted = search.keep * best
    last = None
    for count, trade_offs in enumerate(rungs, len(tried) + 1):
        trial = measure("stability", chosen.lr, trade_offs, wanted)
        if trial.accuracy_new is None:
            continue
        if trial.accuracy_new >= wanted:
            return Found(best, trial, True, count)
        last = trial
    if last is None:
        raise RunFailed(f"step {chosen.step}: the loss is not finite at any trade-off; lower --start or --lr")
    return Found(best, last, False, len(tried) + len(rungs))


def learns_best(tried: Sequence[Trial]) -> tuple[float, Trial]:
    """The best accuracy on the new classes, and the trial of the largest rate that comes within TOLERANCE of it.

    Raises:
        RunFailed: no trial had a finite loss.
    """
    measured = [(trial.accuracy_new, trial) for trial in tried if trial.accuracy_new is not None]
    if not measured:
        raise RunFailed(f"step {tried[0].step}: the loss is not finite at any learning rate; add smaller ones to --lr")
    best = max(accuracy for accuracy, _ in measured)
    rounding = 1e-9  # 0.87 - 0.86 is a hair more than 0.01
    close = [trial for accuracy, trial in measured if accuracy >= best - TOLERANCE - rounding]
    return best, max(close, key=lambda trial: trial.lr)


def recommended(found: Sequence[Found]) -> dict[str, object]:
    """The settings of one recipe for all steps: step 1 has its own rate, the later ones the smallest rate and the
    smallest trade-offs that one of them wanted, so that each still learns its classes."""
    first, *later = [step.accepted for step in found]
    if not later:
        return {"training.lr": first.lr}
    smallest = {key: min(trial.trade_offs[key] for trial in later) for key in later[0].trade_offs}
    return {"training.lr": min(trial.lr for trial in later), "training.first.lr": first.lr, **smallest}


def found_rows(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of what each step wanted."""
    keys = list(found[-1].accepted.trade_offs)
    header = ["step", "lr", *map(_short, keys), "A*", "new", "kept", "seen", "trials"]
    rows = []
    for step in found:
        trial = step.accepted
        assert trial.accuracy_new is not None, "an accepted trial was measured"  # noqa: S101
        share = f"{trial.accuracy_new / step.best:.2f}" if step.best else ""
        values = [f"{trial.trade_offs[key]:g}" if key in trial.trade_offs else "" for key in keys]
        accuracies = [f"{step.best:.3f}", f"{trial.accuracy_new:.3f}", share, f"{trial.accuracy_seen:.3f}"]
        rows.append([str(trial.step), f"{trial.lr:g}", *values, *accuracies, str(step.trials)])
    return header, rows


def found_json(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The same for programs: of each step its accepted trial, and by what it was measured."""
    return [{**step.accepted.row(), "best": step.best, "kept": step.kept, "trials": step.trials} for step in found]


def _short(key: str) -> str:
    return key.removeprefix("penalties.")
