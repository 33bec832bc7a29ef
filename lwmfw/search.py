"""The continual hyper-parameter search of De Lange et al. (2021) as FACIL has it (Masana et al. 2022).

for each step that is searched, from the model that was accepted for the step before:
    plasticity: the step is learned by fine-tuning, the recipe without its penalties, at every candidate rate
                A* = the best accuracy on the new classes ; lr = the largest rate that comes within a point of it
    stability:  the step is learned by the recipe at lr, its trade-offs high at first, then smaller and smaller,
                until the accuracy on the new classes is at least keep * A*: that trial is accepted
Step 1 has nothing to forget: the recipe is trained at every rate, and the chosen trial is accepted.

Accuracies are those of held-out training images; the test set is not read. A trial is a run of the one loop: it starts
from a checkpoint in memory and ends after its step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lwmfw import loop
from lwmfw.api import told_in_words
from lwmfw.assemble import assemble
from lwmfw.checkpoint import Checkpoint
from lwmfw.errors import Interrupted, NotFinite, RunFailed, UserError, did_you_mean, shown
from lwmfw.recipe import Resolved, override
from lwmfw.record import RunDirectory, open_directory, unused
from lwmfw.scenario import Step
from lwmfw.source import flat
from lwmfw.state import DeviceName, environment, prepare

TOLERANCE = 0.01
"""How far below the best a learning rate may be and still count as one that learns the step."""

Stage = Literal["plasticity", "stability"]


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        rates: candidate learning rates, above 0.
        trade_offs: dotted keys of penalties; none: the option `weight` of every penalty that has one above 0.
        start: what the recipe's trade-offs are multiplied by for the first trial, above 0.
        keep: share of A* that a step has to reach, between 0 and 1.
        decay: factor from one trial to the next, between 0 and 1.
        trials: how often trade-offs are tried at most, from 1.
        steps: how many steps are searched at most; 0: all.
        validation: share of the training images that is held out, between 0 and 1.
    """

    rates: Sequence[float]
    trade_offs: Sequence[str] = ()
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
        """What is said of it when it has ended."""
        settings = "  ".join(f"{_short(key)} {value:g}" for key, value in self.trade_offs.items())
        wanted = f" of {self.wanted:.3f} wanted" if self.wanted else ""
        outcome = (
            f"new {self.accuracy_new:.3f}{wanted}  seen {self.accuracy_seen:.3f}"
            if self.accuracy_new is not None
            else "the loss is not finite"
        )
        parts = [f"step {self.step}/{total}", f"{self.stage:<10}", f"lr {self.lr:g}", settings, outcome]
        return "  ".join(part for part in [*parts, f"{self.seconds:.1f} s"] if part)


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
        keys: as named by the user; none: every penalty's `weight` above 0.

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


def ladder(trade_offs: Mapping[str, float], search: Search) -> list[dict[str, float]]:
    """The trade-offs of one trial after the other; empty if there are none."""
    factors = [search.start * search.decay**n for n in range(search.trials)] if trade_offs else []
    return [{key: value * factor for key, value in trade_offs.items()} for factor in factors]


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


def _short(key: str) -> str:
    return key.removeprefix("penalties.")


def search_recipe(
    resolved: Resolved, search: Search, out: Path | None, device: DeviceName, tell: Callable[[str], None]
) -> list[Found]:
    """Search the steps of a recipe and write search.jsonl and found.toml.

    Args:
        resolved: the recipe.
        search: what is searched, and how.
        out: a new directory; by default `runs/<recipe>-search/<time>-s<seed>`.
        device: auto takes a GPU if there is one.
        tell: is given a line about every trial.

    Raises:
        UserError: a wrong key or place, or missing data.
        RunFailed: an error inside a plug-in, or no trial with a finite loss.
        RunBusy: the directory belongs to another process.
        Interrupted: Ctrl-C.
    """
    # whatever can be refused is refused before a directory is made
    trade_offs = trade_offs_of(resolved, search.trade_offs)
    rungs = ladder(trade_offs, search)
    for settings in [*rungs, *({"training.lr": rate} for rate in search.rates)]:
        override(resolved, settings)
    bench = override(resolved, {"observers": [], "evaluation.validation": search.validation})
    first = prepare(assemble(bench), device)
    steps = first.steps[: search.steps or None]
    name, seed = resolved.recipe.name, resolved.recipe.seed
    directory, _ = open_directory(resolved, out or unused(f"{name}-search", seed), "never")
    trials = _Trials(bench, directory, device, tell)
    try:
        tell(_opening(resolved, search, rungs, steps))
        tell(f"recorded in {directory.path}")
        directory.keep_sources(resolved)
        directory.write_environment(environment(first))
        del first  # its images and model are not needed twice
        found: list[Found] = []
        for step in steps:
            # step 1 has nothing to forget
            found.append(settle(search, rungs if step.index > 1 else [], partial(trials.measure, step)))
            trials.origin = found[-1].accepted.after
            tell(_verdict(found[-1], search, step))
        directory.write_recipe("found.toml", override(resolved, recommended(found)), _head(search, found, steps))
        tell(f"found: {directory.path / 'found.toml'}; `lwmfw run` runs it")
    except KeyboardInterrupt as error:
        done = f"{trials.count} trials are in search.jsonl, but a search starts anew"
        raise Interrupted(f"{directory.path}: interrupted; {done}; choose another --out", exit_code=130) from error
    finally:
        directory.close()
    return found


@dataclass
class _Trials:
    """Makes trials and records them; `origin` is what they go on from."""

    recipe: Resolved
    directory: RunDirectory
    device: DeviceName
    tell: Callable[[str], None]
    origin: Checkpoint | None = None
    count: int = 0

    def measure(self, step: Step, stage: Stage, lr: float, trade_offs: dict[str, float], wanted: float) -> Trial:
        """Train one step as stated, from the origin."""
        started = time.perf_counter()
        plain = stage == "plasticity" and step.index > 1
        settings: dict[str, object] = {"training.lr": lr, **trade_offs}
        assembly = assemble(override(self.recipe, settings | ({"penalties": []} if plain else {})))
        new = seen = after = None
        with told_in_words(assembly, self.directory.path):
            run = prepare(assembly, self.device)
            run.steps = run.steps[: step.index]
            # a copy, since components go on with what they are given
            run.origin = copy.deepcopy(self.origin)
            if plain and run.origin:
                run.origin = run.origin.without_extras()
            try:
                result = loop.train(run).steps[-1]
            except NotFinite:
                pass  # a rate too large is an answer, not an error
            else:
                who = run.recipe.evaluation.classifiers[0]
                new, seen, after = result.accuracy_by_step[who][-1], result.accuracy[who], run.snapshot()
        seconds = round(time.perf_counter() - started, 1)
        trial = Trial(step.index, stage, lr, trade_offs, wanted, new, seen, seconds, after)
        self.count += 1
        self.directory.log_trial(trial.row())
        self.tell(trial.line(step.total))
        return trial


def _opening(resolved: Resolved, search: Search, rungs: Sequence[dict[str, float]], steps: Sequence[Step]) -> str:
    rates = ", ".join(f"{rate:g}" for rate in search.rates)
    high = "".join(f", {key} from {value:g}" for key, value in (rungs[0] if rungs else {}).items())
    down = f", times {search.decay:g} up to {search.trials} times" if rungs else ""
    return (
        f"search of {resolved.recipe.name}, seed {resolved.recipe.seed}, steps 1 to {len(steps)} of {steps[0].total}, "
        f"on {search.validation:g} of the training images: training.lr of {rates}{high}{down}"
    )


def _verdict(found: Found, search: Search, step: Step) -> str:
    trial = found.accepted
    values = ", ".join([f"lr {trial.lr:g}", *(f"{_short(k)} {v:g}" for k, v in trial.trade_offs.items())])
    short = "" if found.kept else f"; no trial keeps {search.keep:g} of {found.best:.3f}, so the last is taken"
    return f"step {step.index}/{step.total}: {values}{short}"


def _head(search: Search, found: Sequence[Found], steps: Sequence[Step]) -> str:
    """The comment that found.toml begins with."""
    lines = [
        f"Found by `lwmfw search` on {search.validation:g} of the training images, in steps 1 to {len(steps)} of "
        f"{steps[0].total}; the trials are in search.jsonl",
        "",
        *(_verdict(each, search, step) for each, step in zip(found, steps, strict=True)),
    ]
    if len(steps) > 1:
        lines += [
            "",
            "training.first.lr is that of step 1; training.lr and the trade-offs are the smallest of the later steps.",
        ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
