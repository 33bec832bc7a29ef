"""How soon verbs answer that only talk, each in a process of its own.

    python benchmarks/verbs.py [--times 20]

The least and the median of so many: seconds on the clock, and of the processor, which tell a busy machine from a slow
verb. Before them what no verb is without: Python alone, and the libraries that the command line is written with.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERBS = (
    ["--version"],
    ["--help"],
    ["run", "--help"],
    ["recipes"],
    ["hooks"],
    ["plugins"],
    ["schema"],
    ["check", "recipes/lwm.toml"],
    ["show", "recipes/lwm.toml"],
    ["compare", "--help"],
    ["compare", "docs/measured/cifar100-b50/podnet-1993.json"],
)
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import typer, rich, pydantic": ["-c", "import typer, rich.console, pydantic.types"],
} | {" ".join(["lwmfw", *verb]): ["-m", "lwmfw", *verb] for verb in VERBS}


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)  # noqa: S603
    now = os.times()
    used = now.children_user + now.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    print(f"{'':46}  clock: least  median  processor: least  median")
    for name, command in COMMANDS.items():
        clock, used = zip(*(measured(command) for _ in range(times)), strict=True)
        print(
            f"{name:46}  {min(clock):12.2f}  {statistics.median(clock):6.2f}  {min(used):16.2f}  "
            f"{statistics.median(used):6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
