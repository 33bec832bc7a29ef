"""Tables of results: one run at its end, many runs side by side."""

from __future__ import annotations

from statistics import mean, stdev

from lwmfw.metrics import Results


def result_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table a run ends with: accuracy per step and the measures over all of them."""
    header = ["accuracy", *(f"step {step.step}" for step in results.steps), "average", "last", "forgetting"]
    rows = []
    for who in results.last_accuracy:
        drop = results.forgetting[who]
        measures = [results.average_incremental_accuracy[who], results.last_accuracy[who]]
        values = [step.accuracy[who] for step in results.steps] + measures
        rows.append([who, *(f"{value:.3f}" for value in values), "" if drop is None else f"{drop:.3f}"])
    return header, rows


def comparison_rows(runs: list[Results]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a comparison: one row per recipe and classifier, mean and deviation over seeds.

    A step's column averages the runs that have finished it.
    """
    groups: dict[tuple[str, str], list[Results]] = {}
    for run in runs:
        for who in run.last_accuracy:
            groups.setdefault((run.recipe, who), []).append(run)
    longest = max((len(run.steps) for run in runs), default=0)
    header = ["recipe", "classifier", "seeds", *(f"step {n}" for n in range(1, longest + 1))]
    header += ["average", "last", "forgetting"]
    rows = []
    for (recipe, who), same in groups.items():
        row = [recipe, who, str(len(same))]
        for index in range(longest):
            row.append(_spread([r.steps[index].accuracy[who] for r in same if index < len(r.steps)]))
        row.append(_spread([r.average_incremental_accuracy[who] for r in same]))
        row.append(_spread([r.last_accuracy[who] for r in same]))
        row.append(_spread([drop for r in same if (drop := r.forgetting[who]) is not None]))
        incomplete = sum(not run.complete for run in same)
        rows.append([f"{recipe} ({incomplete} unfinished)" if incomplete else recipe, *row[1:]])
    return header, rows


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
