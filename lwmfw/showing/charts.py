"""What runs have come to, as charts: their numbers and words, before anything is drawn.

A value at a step is the mean over the runs of a variant, with their standard deviation where they are several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from lwmfw.errors import UserError, did_you_mean, shown
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results, StepResult
from lwmfw.record.variants import variants

MOST_POINTS = 400
"""Of a line; longer ones are means of blocks."""
MOST_CELLS = 100
"""On a side of a heat map; cells of larger ones are sums over blocks."""
MOST_NAMES = 20
"""Classes that a heat map names."""
_MOST_TICKS = 12
"""Places that all have a number on an axis."""
_VALUED = 12
"""Rows of a heat map whose cells have room for a number."""
_WIDE = 50
"""Times that the largest value of a chart may be the smallest on a scale that is not logarithmic."""

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


@dataclass(frozen=True)
class Line:
    """Values at places; None: not measured. `deviation` has one for each, None where one run alone was measured, or is
    empty. Lines of one `series` look alike in all charts; None: as its place in the chart has it."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    deviation: Sequence[float | None] = ()
    series: int | None = None


@dataclass(frozen=True)
class Lines:
    """A chart of lines.

    Attributes:
        name: by which it is asked for.
        title: what it shows.
        x_label, y_label: of its axes.
        lines: at least one.
        share: whether values lie in 0..1.
        ticks: places on the x axis that have a number; (): as it suits.
        borders: places between steps.
        logarithmic: whether the y axis is.
        note: what a reader has to know besides.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    share: bool = False
    ticks: Sequence[float] = ()
    borders: Sequence[float] = ()
    logarithmic: bool = False
    note: str = ""

    @property
    def words(self) -> str:
        """The figures, for who does not see the picture."""
        return f"{self.title}. {'; '.join(map(self._line_in_words, self.lines))}."

    def _line_in_words(self, line: Line) -> str:
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        (first, begins), (last, ends) = points[0], points[-1]
        if len(points) == 1:
            return f"{line.label}: {self.told(begins)} at {first:g}"
        low, high = min(y for _, y in points), max(y for _, y in points)
        said = f"{line.label}: from {self.told(begins)} at {first:g} to {self.told(ends)} at {last:g}"
        inside = low < min(begins, ends) or high > max(begins, ends)
        return f"{said}, between {self.told(low)} and {self.told(high)}" if inside else said

    def told(self, value: float) -> str:
        """A value as words and tables have it."""
        return f"{value:.3f}" if self.share else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"

    @property
    def table(self) -> Table:
        """A row for each place."""
        places = sorted({x for line in self.lines for x in line.x})
        cells = {x: [""] * len(self.lines) for x in places}
        for column, line in enumerate(self.lines):
            for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                spread = line.deviation[index] if line.deviation else None
                told = [self.told(value) for value in (y, spread) if value is not None]
                cells[x][column] = " ± ".join(told)
        return [self.x_label, *(line.label for line in self.lines)], [[f"{x:g}", *row] for x, row in cells.items()]


@dataclass(frozen=True)
class Heat:
    """A chart of shares in 0..1, as colours.

    Attributes:
        name, title, x_label, y_label, note: as of `Lines`.
        values: a row of cells for each row; None: there is nothing.
        rows, columns: what they are of; empty where they have no names.
        borders: cells before which another step begins.
        words: the figures, for who does not see the picture.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    values: Sequence[Sequence[float | None]]
    words: str
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    borders: Sequence[float] = ()
    note: str = ""

    @property
    def valued(self) -> bool:
        """Whether cells are large enough to have their values in them, in per cent."""
        return len(self.values) <= _VALUED

    @property
    def table(self) -> Table | None:
        """The same as numbers; None: they are too many."""
        if not self.rows:
            return None
        rows = zip(self.rows, self.values, strict=True)
        cells = [[name, *("" if v is None else f"{v:.3f}" for v in row)] for name, row in rows]
        return [f"{self.y_label} \\ {self.x_label}", *self.columns], cells


Chart = Lines | Heat
_Value = Callable[[StepResult, Results], float | None]
_Series = tuple[str, Sequence[Results], _Value]
"""A label, the runs that have it, and what is taken of a step and of the results as they were after it."""


def readouts_of(runs: Sequence[RecordedRun]) -> list[str]:
    """The read-outs of some runs, in the order of their recipes."""
    return list(dict.fromkeys(who for run in runs for who in (run.results.last_accuracy if run.results.steps else ())))


def best_readout(runs: Sequence[RecordedRun]) -> str:
    """Of the read-outs that the most runs have, that which ends with the highest accuracy, its mean over them."""

    def standing(who: str) -> tuple[int, float]:
        found = [run.results.last_accuracy.get(who) for run in runs if run.results.steps]
        ends = [value for value in found if value is not None]
        return len(ends), mean(ends or [-1.0])

    return max(readouts_of(runs), key=standing, default="")


def line_over_steps(label: str, group: Sequence[Results], value: _Value, place: Callable[[StepResult], int]) -> Line:
    """Mean and deviation over runs after each step that one of them has ended, from the first that has a value; of a
    value of one run alone there is no deviation."""
    x: list[float] = []
    y: list[float | None] = []
    deviation: list[float | None] = []
    for index in range(max(len(results.steps) for results in group)):
        there = [results for results in group if index < len(results.steps)]
        found = [value(r.steps[index], r.after(index + 1)) for r in there]
        measured = [each for each in found if each is not None]
        if measured or y:
            x.append(place(there[0].steps[index]))
            y.append(mean(measured) if measured else None)
            deviation.append(stdev(measured) if len(measured) > 1 else None)
    return Line(label, x, y, deviation if len(group) > 1 else ())


def _over_steps(
    name: str, title: str, y_label: str, runs: Sequence[RecordedRun], series: Sequence[_Series], *, share: bool = False
) -> Lines | None:
    """A chart over the classes seen, or over steps where one has brought no class; None: nothing was measured."""
    grows = all(step.new_classes for run in runs for step in run.results.steps)
    found = [line_over_steps(*each, lambda step: step.seen if grows else step.step) for each in series]
    lines = [replace(line, series=number) for number, line in enumerate(found)]
    kept = [line for line in lines if line.y]
    ticks = sorted({x for line in kept for x in line.x})
    x_label = "classes seen" if grows else "step"
    return (
        Lines(name, title, x_label, y_label, kept, share, ticks if len(ticks) <= _MOST_TICKS else ()) if kept else None
    )


def _groups(runs: Sequence[RecordedRun]) -> dict[str, list[Results]]:
    """The results of runs that have finished a step, by variant."""
    found = {label: [run.results for run in group if run.results.steps] for label, group in variants(runs).items()}
    return {label: group for label, group in found.items() if group}


def _by_readout(runs: Sequence[RecordedRun], who: str, value: Callable[[Results, str], float | None]) -> list[_Series]:
    """Of one run a line for each read-out, or for one; of several a line for each variant, by one read-out."""
    if len(runs) == 1 and not who:
        return [(name, [runs[0].results], _of_readout(value, name)) for name in readouts_of(runs)]
    chosen = _of_readout(value, who or best_readout(runs))
    return [(label, group, chosen) for label, group in _groups(runs).items()]


def _of_readout(value: Callable[[Results, str], float | None], who: str) -> _Value:
    return lambda step, then: value(then, who)


def accuracy(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """Accuracy on all classes seen, after each step."""
    series = _by_readout(runs, who, lambda then, name: then.last_accuracy.get(name))
    return _over_steps("accuracy", f"Accuracy after each step{_by(runs, who)}", "accuracy", runs, series, share=True)


def forgetting(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """Forgetting after each step from the second."""
    series = _by_readout(runs, who, lambda then, name: then.forgetting.get(name))
    return _over_steps(
        "forgetting", f"Forgetting after each step{_by(runs, who)}", "forgetting", runs, series, share=True
    )


def _by(runs: Sequence[RecordedRun], who: str) -> str:
    several_lines_of_one_run = len(runs) == 1 and not who and len(readouts_of(runs)) > 1
    return "" if several_lines_of_one_run else f", by {who or best_readout(runs)}"


def exemplars(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """Exemplars of a class, where any are kept."""
    series = _of_memory(runs, lambda step, then: step.exemplars / max(1, step.seen))
    return _over_steps("exemplars", "Exemplars of a class, mean", "exemplars", runs, series)


def memory(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """Bytes of the exemplars of a class, where any are kept."""
    series = _of_memory(runs, lambda step, then: step.memory_bytes / max(1, step.seen) / 1000)
    return _over_steps("memory", "Bytes of the exemplars of a class, mean", "kB", runs, series)


def _of_memory(runs: Sequence[RecordedRun], value: _Value) -> list[_Series]:
    groups = _groups(runs)
    keeping = [label for label, group in groups.items() if any(step.exemplars for r in group for step in r.steps)]
    return [(name, group, value if name in keeping else lambda *_: None) for name, group in groups.items()]


def time(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """Seconds that each step was trained."""
    series = [(label, group, _seconds) for label, group in _groups(runs).items()]
    return _over_steps("time", "Seconds of training in each step", "seconds", runs, series)


def _seconds(step: StepResult, then: Results) -> float:
    return step.train_seconds


def matrix(runs: Sequence[RecordedRun], who: str = "") -> Heat | None:
    """Accuracy on the classes of each step, after each step."""
    results, who = _single("matrix", runs).results, who or best_readout(runs)
    if not who:
        return None
    count = len(results.steps)
    rows = [step.accuracy_by_step.get(who, [None] * step.step) for step in results.steps]
    values = [[*row, *[None] * (count - len(row))] for row in rows]
    names = [str(step.step) for step in results.steps]
    end = ", ".join(f"{_share(value)} on those of step {step}" for step, value in enumerate(rows[-1], 1))
    title = f"Accuracy on the classes of each step, by {who}"
    words = f"{title}. After the last step: {end}."
    named = (names, names) if count <= MOST_NAMES else ((), ())
    return Heat("matrix", title, "classes of step", "after step", values, words, *named)


def confusion(runs: Sequence[RecordedRun], who: str = "") -> Heat | None:
    """Which class images of each class are taken for, after the last step."""
    results, who = _single("confusion", runs).results, who or best_readout(runs)
    counts = counts_of(results, who)
    if not counts:
        return None
    block = -(-len(counts) // MOST_CELLS)
    small = blocks_of(counts, block)
    values = [[n / sum(row) if sum(row) else None for n in row] for row in small]
    names = [shown(name, 40) for name in class_names(results)] if len(counts) <= MOST_NAMES else ()
    title = f"What images of each class are taken for, by {who}"
    note = f"Each cell stands for {block} x {block} classes, neighbours in the class order." if block > 1 else ""
    worst = "; ".join(f"{share:.0%} of {true} for {taken}" for true, taken, _, share in confused(results, who)[:3])
    words = f"{title}, as shares of a row. The most frequent mistakes: {worst or 'none'}."
    ends = [step.seen / block for step in results.steps[:-1]]
    return Heat("confusion", title, "taken for", "images of", values, words, names, names, ends, note)


def blocks_of(counts: Sequence[Sequence[int]], block: int) -> list[list[int]]:
    """A matrix of counts, cells of so many neighbours in each direction added up."""
    starts = range(0, len(counts), block)
    across = [[sum(row[first : first + block]) for first in starts] for row in counts]
    return [[sum(column) for column in zip(*across[first : first + block], strict=True)] for first in starts]


def counts_of(results: Results, who: str) -> list[list[int]]:
    """The confusion after the last step, a row and a column for each class seen; empty: there is none of this shape."""
    if not results.steps:
        return []
    counts, seen = results.steps[-1].confusion.get(who, []), results.steps[-1].seen
    return counts if len(counts) == seen and all(len(row) == seen and min(row) >= 0 for row in counts) else []


def confused(results: Results, who: str) -> list[tuple[str, str, int, float]]:
    """Pairs of a class and another that its images are taken for, with how many and their share; the largest first."""
    counts = counts_of(results, who)
    names = class_names(results) if counts else []
    pairs = [
        (names[true], names[taken], count, count / sum(row))
        for true, row in enumerate(counts)
        for taken, count in enumerate(row)
        if count and true != taken
    ]
    return sorted(pairs, key=lambda pair: -pair[3])


def class_names(results: Results) -> list[str]:
    """The names of the classes seen, their positions where there are none."""
    seen, known = results.steps[-1].seen if results.steps else 0, results.class_names
    return [known[place] if place < len(known) else f"class {place}" for place in range(seen)]


def loss(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """The terms of the loss, their means over each epoch."""
    run = _single("loss", runs)
    terms = list(dict.fromkeys(term for row in run.epochs for term in row.terms))
    values = {term: [row.terms.get(term) for row in run.epochs] for term in terms}
    only = f"{shown(terms[0], 30)}, " if len(terms) == 1 else ""  # the others are named by the legend
    return _over_epochs("loss", "Terms of the loss in each epoch", f"{only}mean over the epoch", run, values)


def rate(runs: Sequence[RecordedRun], who: str = "") -> Lines | None:
    """The learning rate at the beginning of each epoch."""
    run = _single("rate", runs)
    return _over_epochs("rate", "Learning rate in each epoch", "rate", run, {"rate": [row.lr for row in run.epochs]})


def _over_epochs(
    name: str, title: str, y_label: str, run: RecordedRun, values: Mapping[str, Sequence[float | None]]
) -> Lines | None:
    steps = [row.step for row in run.epochs]
    if not (steps and values):
        return None
    block = -(-len(steps) // MOST_POINTS)
    starts = range(0, len(steps), block)
    x = [first + (min(block, len(steps) - first) + 1) / 2 for first in starts]
    lines = [Line(term, x, [_mean(y[first : first + block]) for first in starts]) for term, y in values.items()]
    borders = [place + 0.5 for place in range(1, len(steps)) if steps[place] != steps[place - 1]]
    found = [y for line in lines for y in line.y if y is not None]
    logarithmic = min(found) > 0 and max(found) > _WIDE * min(found)
    note = f"Each point is the mean of {block} epochs." if block > 1 else ""
    x_label = "epoch, counted over all steps"
    return Lines(name, title, x_label, y_label, lines, borders=borders, logarithmic=logarithmic, note=note)


def _mean(found: Sequence[float | None]) -> float | None:
    values = [value for value in found if value is not None]
    return mean(values) if values else None


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _single(name: str, runs: Sequence[RecordedRun]) -> RecordedRun:
    if len(runs) > 1:
        raise UserError(f"--what {name}: is of one run, and {len(runs)} are named; name one of them")
    return runs[0]


CHARTS: dict[str, Callable[[Sequence[RecordedRun], str], Chart | None]] = {
    chart.__name__: chart for chart in (accuracy, matrix, forgetting, confusion, loss, rate, exemplars, memory, time)
}
"""Name -> what makes the chart of runs, and of a read-out, or of the one that is best where none is named; it returns
None where the runs have nothing of the kind."""


def chart_of(what: str, runs: Sequence[RecordedRun], who: str = "") -> Chart:
    """A chart by its name.

    Raises:
        UserError: there is none of that name, no such read-out, or the runs have nothing of the kind.
    """
    known, listed = readouts_of(runs), ", ".join(CHARTS)
    if what not in CHARTS:
        raise UserError(f"--what {shown(what)}: no such picture{did_you_mean(what, CHARTS) or f'; there are {listed}'}")
    if who and who not in known:
        hint = did_you_mean(who, known) or f"; there are {', '.join(map(shown, known)) or 'none'}"
        raise UserError(f"--readout {shown(who)}: no run has it{hint}")
    chart = CHARTS[what](runs, who)
    if chart is None:
        raise UserError(f"--what {what}: {runs[0].path} has nothing of the kind; try another run or picture")
    return chart
