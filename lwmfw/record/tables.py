"""Results as tables of text: a run at its end, and a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from lwmfw.recipe.published import OTHER
from lwmfw.record.compare import DIFFERING, MEASURES, Row, compare
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import Results, told

FIRST = ("average", "last", "forgetting")
"""The measures that one looks for; the others stand behind the steps."""
FURTHER = tuple(name for name in MEASURES if name not in FIRST)
DIFFERENCE = (
    "difference: to the baseline, over the seeds that both have, with a 95 % interval of Student's t for pairs; "
    '"may be 0": these seeds do not tell the two apart'
)
"""What a table with columns of differences has to say."""
Table = tuple[list[str], list[list[str]]]


def result_rows(results: Results) -> Table:
    """Header and rows of the table a run ends with: the measures over all steps around the accuracy of each step."""
    header = ["accuracy", *FIRST, *(f"step {step.step}" for step in results.steps), *FURTHER]
    rows = []
    for who in results.last_accuracy:
        measures, further = ([MEASURES[name](results)[who] for name in names] for names in (FIRST, FURTHER))
        steps = [step.accuracy.get(who) for step in results.steps]
        rows.append([who, *map(told, [*measures, *steps, *further])])
    return header, rows


def comparison_rows(
    runs: Sequence[RecordedRun], baseline: str = "", *, by_bytes: bool = False, brief: bool = False
) -> Table:
    """Header and rows of a comparison: a row per recipe, variant and read-out, mean and deviation over seeds.

    Runs of one recipe with different settings are variants; their rows name the settings in which they differ, or a
    digest of them where only results are there. The measures that one looks for stand first, then the differences to
    the baseline where there are several variants, what is published, the accuracy after each step, the further
    measures, and what it cost: the most that a step leaves (bytes of the exemplars; bytes of model, exemplars and the
    read-out's state together), the parameters at the end, and the seconds and epochs, those of all phases, that all
    steps were trained.

    Args:
        runs: as `compare` takes them.
        baseline: likewise.
        by_bytes: likewise; the total and which rows are best for theirs stand before the measures.
        brief: without steps and costs, what is published of other settings, and columns in which nothing stands.

    Raises:
        UserError: as `compare`.
    """
    compared = compare(runs, baseline, by_bytes=by_bytes)
    rows = compared.rows
    columns = {
        "recipe": [row.variant for row in rows],
        "read-out": [row.readout for row in rows],
        "seeds": [str(len(row.runs)) for row in rows],
    }
    total = [_kilobytes(row.costs["total"]) for row in rows]
    if by_bytes:
        columns |= {"total": total, "best": ["best" * row.best for row in rows]}
    columns |= _measures(rows, FIRST)
    if len(compared.variants) > 1:
        columns |= {
            f"{name}: difference": [_difference(row, name, compared.baseline) for row in rows] for name in DIFFERING
        }
    figures = [[each for each in row.published if not (brief and each.settings == OTHER)] for row in rows]
    if any(figures):
        columns["published"] = ["; ".join(map(str, each)) for each in figures]
    if not brief:
        longest = max((len(row.steps) for row in rows), default=0)
        columns |= {f"step {n}": [_told(row.steps[n - 1 : n]) for row in rows] for n in range(1, longest + 1)}
    columns |= _measures(rows, FURTHER)
    if not brief:
        columns["memory"] = [_kilobytes(row.costs["memory"]) for row in rows]
        columns["parameters"] = _whole(rows, "parameters")
        columns |= {} if by_bytes else {"total": total}
        columns |= {name: _whole(rows, name) for name in ("seconds", "epochs")}
    shown = {title: cells for title, cells in columns.items() if not brief or any(cells)}
    return list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)]


def _measures(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    return {name: [_told([row.measures[name]]) for row in rows] for name in names}


def _told(values: Sequence[object]) -> str:
    """The text of a value, if there is one."""
    return "".join(str(value) for value in values if value is not None)


def _difference(row: Row, name: str, baseline: str) -> str:
    return "baseline" if row.variant == baseline else _told([row.differences[name]])


def _kilobytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1000:.1f} kB"


def _whole(rows: Sequence[Row], name: str) -> list[str]:
    return [told(row.costs[name], digits=0) for row in rows]
