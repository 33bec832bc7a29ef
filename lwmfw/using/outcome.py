"""What a verb came to, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lwmfw.engine.run import Run


def outcome(run: Run, seconds: float) -> dict[str, Any]:
    """What a run came to in its last step: accuracy by class, of what was tested, certificates, and where it is."""
    result, names = run.results.steps[-1], run.results.class_names
    rows = [
        {
            "class": name,
            "new": place >= result.seen - len(result.new_classes),
            "images": sum(next(iter(result.confusion.values()))[place]),
            "accuracy": {
                who: _share([matrix[place][place]], [matrix[place]]) for who, matrix in result.confusion.items()
            },
        }
        for place, name in enumerate(names)
    ]
    return {
        "run": str(run.directory.path) if run.directory else "",
        "seconds": round(seconds, 2),
        "accuracy": result.accuracy,
        "accuracy_of_tested": {
            who: _share([matrix[place][place] for place in range(len(matrix))], matrix)
            for who, matrix in result.confusion.items()
        },
        "by_class": rows,
        "readouts": result.readouts,
        "readout_bytes": result.readout_bytes,
    }


def _share(right: list[int], rows: list[list[int]]) -> float | None:
    images = sum(map(sum, rows))
    return sum(right) / images if images else None


def table(said: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the accuracies."""
    rows = [
        [each["class"], "new" if each["new"] else "", str(each["images"]), *map(_measure, each["accuracy"].values())]
        for each in said["by_class"]
    ]
    tested = said["accuracy_of_tested"]
    rows.append(["tested", "", str(sum(each["images"] for each in said["by_class"])), *map(_measure, tested.values())])
    return ["class", "", "images", *tested], rows


def _measure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def certificates(said: Mapping[str, Any]) -> list[str]:
    """A line on what each read-out with a state is worth, and one on the run."""
    found = []
    for name, each in said["readouts"].items():
        size = said["readout_bytes"][name]
        if "exact" not in each:
            worth = "made from features as its own steps gave them"
        elif each["exact"]:
            worth = "exact, as if all images had been there at once"
        else:
            worth = f"carried over, drift {each['drift']:.3f}" if "drift" in each else "not exact"
        found.append(f"{name}: {worth}; statistics {each['statistics'][:16]}, {size / 1e6:.2f} MB")
    return [*found, f"{said['run']}: {said['seconds']:.1f} s"]
