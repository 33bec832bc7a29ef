"""What a piece of work takes of time and memory, at its worst moment."""

import time
from pathlib import Path


class Taken:
    """While it is entered, work is done; afterwards:

    Attributes:
        seconds: that it took.
        peak: MiB of memory beyond what the process had, at most.
        kept: MiB beyond what it had, afterwards.
    """

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what there is now
        self._before, self._begun = _mib("VmRSS"), time.perf_counter()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self._begun
        self.peak, self.kept = _mib("VmHWM") - self._before, _mib("VmRSS") - self._before


def _mib(name):
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024
