"""A line of progress, as much of it as a terminal has room for."""

from __future__ import annotations

from collections.abc import Sequence

BAR, SHORTEST_BAR = 20, 6
"""Columns of the bar."""


def fitted(width: int, forms: Sequence[tuple[str, str]], more: Sequence[str]) -> tuple[str, int, str]:
    """What stands before the bar, how long the bar is, and what stands behind it.

    Args:
        width: columns of the terminal.
        forms: where the run is and the time it has left, the most words first; the first that fits is taken.
        more: what is shown behind them as far as there is room, what matters most first.
    """

    def room(head: str, tail: str) -> int:
        return width - len(head) - len(tail) - 2

    head, tail = next((form for form in forms if room(*form) >= SHORTEST_BAR), forms[-1])
    for text in more:
        longer = f"{tail}  {text}".strip()
        if room(head, longer) < SHORTEST_BAR:
            break
        tail = longer
    return head, max(1, min(BAR, room(head, tail))), tail


def duration(seconds: float) -> str:
    """Seconds as a clock shows them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
