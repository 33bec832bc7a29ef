"""What a run would do, said before it is done.

Exemplars are counted at their mean size as the codec is set up, new images before `choose_data` leaves any out.
"""

from __future__ import annotations

from lwmfw.engine.run import Run


def plan_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the plan: per step and phase its classes, images and updates; at the end, what that makes."""
    rows, totals = [], [0, 0]
    for step in run.steps:
        names = ", ".join(run.results.class_names[c] for c in step.new_classes)
        for phase in run.phases(step):
            shape = run.planned_shape(step, phase)
            work = phase.epochs, phase.epochs * shape.batches
            totals = [total + more for total, more in zip(totals, work, strict=True)]
            rows.append([str(step.index), phase.name, *map(str, (shape.count, *work)), names])
    rows.append(["all", "", "", *map(str, totals), ""])
    return ["step", "phase", "images", "epochs", "updates", "new classes"], rows
