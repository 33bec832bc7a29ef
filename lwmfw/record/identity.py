"""What two recipes have to have in common for their runs to be the same run."""

from __future__ import annotations

from typing import Any


def identity_of(tables: dict[str, Any]) -> dict[str, Any]:
    """What two runs have alike of which one can go on as the other, with another number of threads too."""
    training = {key: value for key, value in tables.get("training", {}).items() if key != "threads"}
    return portable(tables) | {"training": training}


def portable(tables: dict[str, Any]) -> dict[str, Any]:
    """Tables with plug-in files by name and digest, wherever they lie."""
    return tables | {"plugins": [str(each).replace("\\", "/").rsplit("/", 1)[-1] for each in tables["plugins"]]}


def first_difference(one: Any, two: Any, where: str = "") -> str:
    """The dotted key of the first value in which two trees of tables differ; empty: in none."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in [*one, *(k for k in two if k not in one)]:
            found = first_difference(one.get(key), two.get(key), f"{where}.{key}".lstrip("."))
            if found:
                return found
        return ""
    return "" if one == two else where
