"""What a run would do, said before it is done.

Exemplars are counted at their mean size as the codec is set up, new images before `choose_data` leaves any out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lwmfw.engine.run import Run


def plan_rows(planned: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the plan; at the end, what that makes."""
    rows = [[*map(str, list(each.values())[:-1]), ", ".join(each["new_classes"])] for each in planned]
    totals = [str(sum(each[key] for each in planned)) for key in ("epochs", "updates")]
    header = ["step", "phase", "images", "epochs", "updates", "new classes"]
    return header, [*rows, ["all", "", "", *totals, ""]]


def plan(run: Run) -> list[dict[str, Any]]:
    """Of each phase of each step its images, updates and new classes."""
    planned = []
    for step in run.steps:
        names = [run.results.class_names[c] for c in step.new_classes]
        for phase in run.phases(step):
            shape = run.planned_shape(step, phase)
            work = {"images": shape.count, "epochs": phase.epochs, "updates": phase.epochs * shape.batches}
            planned.append({"step": step.index, "phase": phase.name, **work, "new_classes": names})
    return planned
