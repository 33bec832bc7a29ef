"""Values as messages name them."""

from __future__ import annotations


def told(value: object) -> str:
    """A value as a message names it: tensors by dtype and shape, all else by type."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return "None" if value is None else type(value).__name__
    where = f" on {value.device}" if getattr(getattr(value, "device", None), "type", "cpu") != "cpu" else ""  # type: ignore[attr-defined]
    return f"{dtype} of shape {tuple(shape)}{where}"
