"""What a run would do, said before it is done."""

from __future__ import annotations

from lwmfw.state import Run


def plan_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the plan: per step its classes, images and updates."""
    rows = []
    for step in run.steps:
        names = ", ".join(run.results.class_names[c] for c in step.new_classes)
        numbers = [step.index, run.image_count(step), run.phase(step).epochs, run.updates(step)]
        rows.append([*map(str, numbers), names])
    return ["step", "images", "epochs", "updates", "new classes"], rows
