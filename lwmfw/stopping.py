"""A wish to stop, which waits for a moment at which everything can be kept.

Whoever hears of a signal asks `STOP.waits` whether such a moment will come; a run at work says so, and looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether somebody wishes the process to stop, and whether a run will look.

    Attributes:
        waits: a run is at work that will see the wish soon.
        wished: somebody has wished it.
    """

    def __init__(self) -> None:
        self.waits = False
        self.wished = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the wish waits until `obey` is called."""
        self.waits, self.wished = True, False
        try:
            yield
        finally:
            self.waits = False

    def obey(self) -> None:
        """Stop here if it is wished; everything has been kept.

        Raises:
            KeyboardInterrupt: it is.
        """
        if self.wished:
            self.waits = self.wished = False
            raise KeyboardInterrupt


STOP = Stop()
"""The process has one."""
