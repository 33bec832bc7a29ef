"""Which of many runs are seeds of one variant, and what tells the variants apart in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from lwmfw.errors import UserError
from lwmfw.record.reading import RecordedRun, is_place_of_images


def variants(runs: Sequence[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """Runs by recipe, the settings in which runs of that recipe differ, and how far one that has not ended has come.

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
    """A run's recipe, what tells it from others of that recipe, and of one that has not ended how many steps it has."""
    others = [other for other in runs if other.results.recipe == run.results.recipe]
    known = {other.settings_digest: _settings(other, others) for other in others if other.settings}
    if run.settings_digest in known:
        differs = _told_apart(known[run.settings_digest], list(known.values()))
    else:
        several = len({other.settings_digest for other in others}) > 1
        differs = f"settings={run.settings_digest[:8] or 'unknown'}" if several else ""
    steps = len(run.results.steps)
    unfinished = "" if run.results.complete else f"(unfinished, {steps} step{'s' * (steps != 1)})"
    return " ".join(filter(None, [run.results.recipe, differs, unfinished]))


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
