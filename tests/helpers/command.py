"""The command line as a process."""

import os
import subprocess
import sys


def lwmfw(*arguments, env=None, **options):
    """Run the command and return what it said."""
    command = [sys.executable, "-m", "lwmfw", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"} | (env or {})
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)
