"""Many runs side by side: the measures of each variant over its seeds, and how far each is from a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lwmfw.errors import UserError, did_you_mean, shown
from lwmfw.recipe import shipped
from lwmfw.recipe.published import OTHER, UNKNOWN, Published, published_of
from lwmfw.record.reading import RecordedRun, settings_of
from lwmfw.record.results import Results, average
from lwmfw.record.spread import Difference, Spread, paired_difference, spread_of
from lwmfw.record.variants import variants

_Measure = Callable[[Results], dict[str, float | None]]
MEASURES: dict[str, _Measure] = {
    "average": lambda results: results.average_incremental_accuracy,
    "last": lambda results: results.last_accuracy,
    "forgetting": lambda results: results.forgetting,
    "BWT": lambda results: results.backward_transfer,
    "task-aware": lambda results: results.task_aware_accuracy,
    "new classes": lambda results: results.new_class_accuracy,
}
"""By their names in tables."""
DIFFERING = ("average", "last")
"""The measures of which differences are told."""


@dataclass(frozen=True)
class Row:
    """A read-out of a variant.

    Attributes:
        variant: its name, which tells it from the others.
        readout: empty for runs that have not finished a step.
        runs: its runs, of different seeds.
        measures: those of MEASURES.
        steps: the accuracy after each step, of the runs that have finished it.
        costs: means over its runs; `memory` and `total` in bytes.
        published: figures of its recipe in the same protocol.
        differences: to the baseline's row of the same read-out, where it is not that itself.
        best: whether no other row of the same steps has as high an average accuracy with as few bytes; never of runs
            that have not ended.
    """

    variant: str
    readout: str
    runs: list[RecordedRun]
    measures: dict[str, Spread | None]
    steps: list[Spread | None]
    costs: dict[str, float | None]
    published: list[Published]
    differences: Mapping[str, Difference | None]
    best: bool = False


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the runs, or by bytes, and the variant that differences are taken to."""

    rows: list[Row]
    baseline: str

    @property
    def variants(self) -> list[str]:
        """The names of its variants."""
        return list(dict.fromkeys(row.variant for row in self.rows))


def compare(runs: Sequence[RecordedRun], baseline: str = "", *, by_bytes: bool = False) -> Comparison:
    """Compare variants, seed by seed.

    Args:
        runs: of which those of one variant are its seeds.
        baseline: a variant's name, its recipe's where that is one variant's alone, or a run; empty: the first variant.
        by_bytes: order the rows by their total bytes.

    Raises:
        UserError: two runs have the same recipe, settings and seed, or there is no such baseline.
    """
    groups = variants(runs)
    first = _baseline(groups, baseline) if groups else ""
    rows = [_row(name, who, group, groups[first]) for name, group in groups.items() for who in _readouts(group)]
    rows = [replace(row, differences={} if row.variant == first else row.differences) for row in rows]
    rows = [replace(row, best=_is_best(row, rows)) for row in rows]
    if by_bytes:
        rows = sorted(rows, key=lambda row: row.costs["total"] or 0)
    return Comparison(rows, first)


def _row(variant: str, who: str, runs: list[RecordedRun], others: list[RecordedRun]) -> Row:
    results = [run.results for run in runs]
    begun = [each for each in results if each.steps]
    steps = max((len(each.steps) for each in begun), default=0)
    after = [
        [each.steps[index].accuracy.get(who) for each in begun if index < len(each.steps)] for index in range(steps)
    ]
    sizes = [len(step.new_classes) for step in results[0].steps] if results[0].complete else []
    figures = [] if _held_out(runs[0]) else published_of(results[0].recipe, results[0].providers, sizes)
    return Row(
        variant=variant,
        readout=who,
        runs=runs,
        measures={name: spread_of([of(each).get(who) for each in results]) for name, of in MEASURES.items()},
        steps=[spread_of(accuracies) for accuracies in after],
        costs={name: average([of(each, who) for each in begun]) for name, of in _COSTS.items()},
        published=[_beside(figure, who, runs) for figure in figures if figure.readout in (who, "")],
        differences={name: _difference(name, who, runs, others) for name in DIFFERING},
    )


def _beside(figure: Published, who: str, runs: Sequence[RecordedRun]) -> Published:
    """A published figure with how the settings of runs of one variant are to those of the recipe that states it."""
    ours = next((run.settings for run in runs if run.settings), None)
    theirs = _settings_of_shipped(figure.recipe) if ours else None
    if not (ours and theirs):
        return replace(figure, settings=UNKNOWN)
    ours, theirs = _deciding(ours, who), _deciding(theirs, who)
    later = {key: value for key, value in theirs.items() if not key.endswith(".use")}  # options may have come since
    return figure if {**later, **ours} == theirs else replace(figure, settings=OTHER)


@cache
def _settings_of_shipped(recipe: str) -> dict[str, str] | None:
    """The settings of a shipped recipe; None: it needs what is not installed."""
    from lwmfw.recipe.load import load_recipe

    try:
        tables = load_recipe(shipped.find(recipe)).tables()
    except UserError:
        return None
    return settings_of(tables, Results(recipe, 0, [], [], {}, True, []))


def _deciding(settings: Mapping[str, str], who: str) -> dict[str, str]:
    """What has a part in the numbers of a read-out, beyond the steps, which are compared for themselves."""
    apart = ("scenario.", "data.root", "data.download")
    return {
        key: value
        for key, value in settings.items()
        if not key.startswith(apart) and (not key.startswith("readouts.") or key.startswith(f"readouts.{who}."))
    }


def _readouts(runs: Sequence[RecordedRun]) -> list[str]:
    begun = [run.results for run in runs if run.results.steps]
    return list(dict.fromkeys(who for results in begun for who in results.last_accuracy)) or [""]


def _difference(name: str, who: str, ours: Sequence[RecordedRun], theirs: Sequence[RecordedRun]) -> Difference | None:
    """The paired difference over the seeds that both have measured on the same images, of an average over the steps
    where these are the same."""
    alike = _same_steps if name == "average" else _alike
    pairs = [(a, b) for a in ours for b in theirs if a.results.seed == b.results.seed and alike(a, b)]
    return paired_difference(
        *({each[i].results.seed: MEASURES[name](each[i].results).get(who) for each in pairs} for i in (0, 1))
    )


def _alike(one: RecordedRun, other: RecordedRun) -> bool:
    """Whether two runs have ended, have learned the same classes of the same data set, in whatever steps, and were
    measured on the same images of it."""
    ours, theirs = one.results, other.results
    same = not (ours.data and theirs.data) or ours.data["sha256"] == theirs.data["sha256"]
    measured = same and _held_out(one) == _held_out(other)
    return ours.complete and theirs.complete and measured and sorted(ours.class_names) == sorted(theirs.class_names)


def _same_steps(one: RecordedRun, other: RecordedRun) -> bool:
    """Whether they are alike and each step had as many classes, without which averages over steps say different
    things."""
    ours, theirs = ([len(step.new_classes) for step in run.results.steps] for run in (one, other))
    return ours == theirs and _alike(one, other)


def _held_out(run: RecordedRun) -> float:
    """The share of training images that takes the test set's place; of results alone, which do not say, none."""
    return float(run.settings.get("evaluation.validation", "0"))


def _is_best(row: Row, rows: Sequence[Row]) -> bool:
    ours, run = _standing(row), row.runs[0]
    rivals = [_standing(each) for each in rows if _same_steps(each.runs[0], run)]
    if ours is None or not run.results.complete:
        return False
    return not any(each and each != ours and each[0] >= ours[0] and each[1] <= ours[1] for each in rivals)


def _standing(row: Row) -> tuple[float, float] | None:
    """Average accuracy and total bytes."""
    spread, total = row.measures["average"], row.costs["total"]
    return (spread.mean, total) if spread and total is not None else None


def _baseline(groups: Mapping[str, Sequence[RecordedRun]], wanted: str) -> str:
    if not wanted:
        return next(iter(groups))
    paths = {run.path: name for name, runs in groups.items() for run in runs}
    named = [wanted] if wanted in groups else [paths[Path(wanted)]] if Path(wanted) in paths else []
    named = named or [name for name, runs in groups.items() if wanted == runs[0].results.recipe]
    if len(named) == 1:
        return named[0]
    if named:
        raise UserError(f"--baseline {shown(wanted)}: is {len(named)} variants; name a run of the one that is meant")
    recipes = {run.results.recipe for runs in groups.values() for run in runs}
    hint = did_you_mean(wanted, [*groups, *recipes]) or f"; name one of {shown(', '.join(recipes), 200)}, or a run"
    raise UserError(f"--baseline {shown(wanted)}: no variant or run that is compared{hint}")


_Cost = Callable[[Results, str], float | None]
_COSTS: dict[str, _Cost] = {
    "memory": lambda results, who: max(step.memory_bytes for step in results.steps),
    "parameters": lambda results, who: results.steps[-1].parameters,
    "total": lambda results, who: max(
        step.model_bytes + step.memory_bytes + step.readout_bytes.get(who, 0) for step in results.steps
    ),
    "seconds": lambda results, who: sum(step.train_seconds for step in results.steps),
    "epochs": lambda results, who: (
        sum(step.epochs for step in results.steps) if all(step.epochs for step in results.steps) else None
    ),
}


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON has it, of full precision; docs/results.md says what the keys mean."""
    rows = []
    for row in comparison.rows:
        first = row.runs[0].results
        rows.append(
            {
                "variant": row.variant,
                "recipe": first.recipe,
                "readout": row.readout,
                "complete": first.complete,
                "seeds": [run.results.seed for run in row.runs],
                "runs": [str(run.path) for run in row.runs],
                "measures": {name: spread and asdict(spread) for name, spread in row.measures.items()},
                "steps": [spread and asdict(spread) for spread in row.steps],
                "differences": {name: found and asdict(found) for name, found in row.differences.items()},
                "published": [asdict(figure) for figure in row.published],
                "costs": row.costs,
                "best": row.best,
            }
        )
    return {"schema": 1, "baseline": comparison.baseline, "rows": rows}
