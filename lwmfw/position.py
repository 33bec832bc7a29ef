"""Where a run is."""

from dataclasses import dataclass


@dataclass
class Position:
    """Where the run is; named by every error inside a plug-in. Zero: not there yet."""

    step: int = 0
    phase: str = ""
    epoch: int = 0
    batch: int = 0

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in ("step", "epoch", "batch")]
        text = ", ".join(f"{name} {value}" for name, value in parts if value)
        return f"in {text}" if text else "before the first step"
