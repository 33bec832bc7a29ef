"""Tables of results: one run at its end, many runs side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import mean, stdev

from lwmfw.errors import UserError
from lwmfw.record.reading import RecordedRun, is_place_of_images
from lwmfw.record.results import Results, told


def result_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table a run ends with: the measures over all steps around the accuracy of each step."""
    header = ["accuracy", *_MEASURES, *(f"step {step.step}" for step in results.steps), *_FURTHER]
    rows = []
    for who in results.last_accuracy:
        measures, further = ([measure(results)[who] for measure in each.values()] for each in (_MEASURES, _FURTHER))
        steps = [step.accuracy.get(who) for step in results.steps]
        rows.append([who, *map(told, [*measures, *steps, *further])])
    return header, rows


def comparison_rows(runs: Sequence[RecordedRun]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a comparison: a row per recipe, variant and classifier, mean and deviation over seeds.

    Runs of one recipe with different settings are variants; their rows name the settings in which they differ, or a
    digest of them where only results are there. The measures that one looks for stand first, then the accuracy after
    each step, of the runs that have finished it, the further measures, and what it cost: the most that a step leaves
    (bytes of the exemplars; bytes of model, exemplars and the read-out's state together), the parameters at the end,
    and the seconds and epochs, those of all phases, that all steps were trained.

    Raises:
        UserError: two runs have the same recipe, settings and seed.
    """
    longest = max((len(run.results.steps) for run in runs), default=0)
    numbers = [f"step {number}" for number in range(1, longest + 1)]
    header = ["recipe", "classifier", "seeds", *_MEASURES, *numbers, *_FURTHER, *_COSTS]
    rows = []
    for label, group in variants(runs).items():
        same = [run.results for run in group]
        begun = [results for results in same if results.steps]
        for who in dict.fromkeys(who for results in begun for who in results.last_accuracy) or [""]:
            measures, further = (
                [_spread([measure(r).get(who) for r in same]) for measure in each.values()]
                for each in (_MEASURES, _FURTHER)
            )
            costs = [cost(begun, who) if begun else "" for cost in _COSTS.values()]
            reached = ([r.steps[index] for r in same if index < len(r.steps)] for index in range(longest))
            steps = [_spread([step.accuracy.get(who) for step in finished]) for finished in reached]
            rows.append([label, who, str(len(same)), *measures, *steps, *further, *costs])
    return header, rows


def _memory(runs: Sequence[Results], who: str) -> str:
    return f"{mean(max(step.memory_bytes for step in r.steps) for r in runs) / 1000:.1f} kB"


def _parameters(runs: Sequence[Results], who: str) -> str:
    return f"{mean(r.steps[-1].parameters for r in runs):.0f}"


def _total(runs: Sequence[Results], who: str) -> str:
    sizes = [
        max(step.model_bytes + step.memory_bytes + step.readout_bytes.get(who, 0) for step in r.steps) for r in runs
    ]
    return f"{mean(sizes) / 1000:.1f} kB"


def _seconds(runs: Sequence[Results], who: str) -> str:
    return f"{mean(sum(step.train_seconds for step in r.steps) for r in runs):.0f}"


def _epochs(runs: Sequence[Results], who: str) -> str:
    counts = [sum(step.epochs for step in r.steps) for r in runs if all(step.epochs for step in r.steps)]
    return f"{mean(counts):.0f}" if counts else ""


_Measure = Callable[[Results], dict[str, float | None]]
_MEASURES: dict[str, _Measure] = {
    "average": lambda results: results.average_incremental_accuracy,
    "last": lambda results: results.last_accuracy,
    "forgetting": lambda results: results.forgetting,
}
_FURTHER: dict[str, _Measure] = {
    "BWT": lambda results: results.backward_transfer,
    "task-aware": lambda results: results.task_aware_accuracy,
}
_COSTS = {"memory": _memory, "parameters": _parameters, "total": _total, "seconds": _seconds, "epochs": _epochs}


def variants(runs: Sequence[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """Runs by recipe, the settings in which runs of that recipe differ, and completeness.

    Raises:
        UserError: two runs have the same recipe, settings and seed.
    """
    labels = [_label(run, runs) for run in runs]
    for tell in (_measured_on, _learned_from):
        # results alone say nothing of their settings; what they were measured on tells them apart all the same
        alike = {name: {tell(r) for r, theirs in zip(runs, labels, strict=True) if theirs == name} for name in labels}
        labels = [
            f"{name}{tell(r) if len(alike[name] - {''}) > 1 else ''}" for r, name in zip(runs, labels, strict=True)
        ]
    groups: dict[str, list[RecordedRun]] = {}
    for run, label in zip(runs, labels, strict=True):
        groups.setdefault(label, []).append(run)
    for label, group in groups.items():
        seeds = [run.results.seed for run in group]
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                first = group[seeds.index(seed)].path
                raise UserError(f"{group[index].path}: the same recipe and seed as {first} ({label}); name one of them")
    return groups


def _label(run: RecordedRun, runs: Sequence[RecordedRun]) -> str:
    """A run's recipe, what tells it from others of that recipe, and whether it has ended."""
    others = [other for other in runs if other.results.recipe == run.results.recipe]
    known = {other.settings_digest: _settings(other, others) for other in others if other.settings}
    if run.settings_digest in known:
        differs = _told_apart(known[run.settings_digest], list(known.values()))
    else:
        several = len({other.settings_digest for other in others}) > 1
        differs = f"settings={run.settings_digest[:8] or 'unknown'}" if several else ""
    return " ".join(filter(None, [run.results.recipe, differs, "" if run.results.complete else "(unfinished)"]))


def _settings(run: RecordedRun, alike: Sequence[RecordedRun]) -> Mapping[str, str]:
    """What decides a run's numbers; where the images lie does not, if all are known to have the same."""
    if len({_learned_from(each) for each in alike}) > 1 or not _learned_from(run):
        return run.settings
    return {key: value for key, value in run.settings.items() if not is_place_of_images(key, value)}


def _told_apart(settings: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> str:
    """The settings by which a run differs from others of its recipe; of a component that not all have, its name says
    enough, and its options count among those that have it."""
    found = []
    for key, value in settings.items():
        *table, last = key.split(".")
        use = ".".join([*table, "use"])
        having = [other for other in others if other.get(use) == settings.get(use)]
        if last == "use":
            if len(having) < len(others):
                found.append(".".join(table) if key not in _common(others) else f"{key}={value}")
        elif last != "as" and len({other.get(key) for other in having}) > 1:
            found.append(f"{key}={_REST.sub('', value)}")
    return " ".join(found)


def _common(others: Sequence[Mapping[str, str]]) -> set[str]:
    """The keys that all have."""
    return set.intersection(*map(set, others)) if others else set()


def _measured_on(run: RecordedRun) -> str:
    """The first of the classes by name, and how many each step has; of an unfinished run how many there are."""
    results = run.results
    sizes = [len(step.new_classes) for step in results.steps] if results.complete else [len(results.class_names)]
    return f" on classes from {min(results.class_names, default='')}, {_counted(sizes)}"


def _learned_from(run: RecordedRun) -> str:
    """The digest of the data set; empty where it is not known, and nothing tells a run apart then."""
    return f" of data {run.results.data['sha256'][:8]}" if run.results.data else ""


def _counted(sizes: Sequence[str | int]) -> str:
    """Sizes of steps, many equal ones by their number: 50 + 5 x 10."""
    runs = [(size, len(list(equal))) for size, equal in groupby(sizes)]
    return " + ".join(f"{n} x {size}" if n > _MANY else " + ".join([str(size)] * n) for size, n in runs)


_MANY = 2
_REST = re.compile("(?<=sha256:[0-9a-f]{8})[0-9a-f]{56}")
"""What a label leaves out of a digest."""


def _spread(found: Sequence[float | None]) -> str:
    values = [value for value in found if value is not None]
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
