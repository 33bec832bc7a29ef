"""What a report says of several runs: what tells them apart, means over seeds, and which runs they are."""

from __future__ import annotations

from collections.abc import Sequence

from lwmfw.record.reading import RecordedRun
from lwmfw.record.tables import DIFFERENCE, comparison_rows
from lwmfw.record.variants import variants
from lwmfw.showing import charts
from lwmfw.showing.parts import Section, TableOf, present

_MOST = 5
"""Variants that the headline names."""


def headline(runs: Sequence[RecordedRun]) -> list[str]:
    """The variants that end highest, each by its best read-out, in words."""
    found = [(who, chart) for who in charts.readouts_of(runs) if (chart := charts.accuracy(runs, who))]
    ends = [(line.y[-1], line.label, who) for who, chart in found for line in chart.lines]
    best: dict[str, str] = {}
    for value, label, who in sorted([end for end in ends if end[0] is not None], key=lambda end: -(end[0] or 0)):
        best.setdefault(label, f"{label} {value:.1%} by {who}")
    more = f", and {len(best) - _MOST} more" if len(best) > _MOST else ""
    listed = ", ".join(list(best.values())[:_MOST])
    ended = all(run.results.complete for run in runs)
    where = "all classes after the last step" if ended else "all classes seen after the last finished step"
    return [f"Accuracy on {where}, mean over seeds: {listed}{more}."] if best else []


def sections(runs: Sequence[RecordedRun]) -> list[Section]:
    """All sections."""
    return [_comparison(runs), _curves(runs), _costs(runs), _named(runs)]


def _comparison(runs: Sequence[RecordedRun]) -> Section:
    header, rows = comparison_rows(runs, brief=True)
    differ = any(title.endswith("difference") for title in header)
    words = [f"{DIFFERENCE[0].upper()}{DIFFERENCE[1:]}."] if differ else []
    return Section("comparison", "Side by side", words, tables=[TableOf("Mean and deviation over seeds", header, rows)])


def _curves(runs: Sequence[RecordedRun]) -> Section:
    makers = [charts.accuracy, charts.forgetting]
    found = [
        chart
        for who in charts.readouts_of(runs)
        for maker in makers
        if (chart := maker(runs, who)) and any(len(line.x) > 1 for line in chart.lines)
    ]
    words = [
        "Lines are means over the seeds of a variant. Bands, where there are few lines, reach one standard deviation "
        "from the mean; the tables have it of all."
    ]
    return Section("curves", "Accuracy and forgetting", words if found else [], found)


def _costs(runs: Sequence[RecordedRun]) -> Section:
    return Section("costs", "Memory and time", charts=present(runs, charts.exemplars, charts.memory, charts.time))


def _named(runs: Sequence[RecordedRun]) -> Section:
    rows = [[label, *_facts(run)] for label, group in variants(runs).items() for run in group]
    header = ["variant", "run", "seed", "steps", "finished"]
    return Section("runs", "Runs", tables=[TableOf("What was compared", header, rows)])


def _facts(run: RecordedRun) -> list[str]:
    results = run.results
    return [str(run.path), str(results.seed), str(len(results.steps)), "yes" if results.complete else "no"]
