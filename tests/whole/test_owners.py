"""Several processes on one run directory: one has it, and the others are told who, at once.

`OWNERS=100 pytest tests/whole/test_owners.py -s` tries it so often; twice otherwise.
"""

import os
import re
import signal
import socket
import time
from multiprocessing import get_context

import pytest

from lwmfw.errors import RunBusy
from lwmfw.recipe.load import load_recipe
from lwmfw.record.directory import open_directory
from lwmfw.testing import tiny_recipe

ROUNDS = int(os.environ.get("OWNERS", "2"))
FORK = get_context("fork")


def owning(resolved, path, barrier, answers):
    """Try to own a directory when all do; one that owns it keeps it until it is killed."""
    barrier.wait()
    begun = time.monotonic()
    try:
        owned = open_directory(resolved, path, "auto")  # for as long as somebody has it
    except RunBusy as busy:
        answers.put((os.getpid(), time.monotonic() - begun, str(busy), busy.exit_code))
        return
    answers.put((os.getpid(), 0.0, "", 0))
    time.sleep(600)
    del owned


@pytest.mark.timeout(1200)
def test_one_of_many_owns_a_directory_and_the_others_are_told_who(tmp_path):
    resolved, path, slowest = load_recipe(tiny_recipe({}, tmp_path)), tmp_path / "run", 0.0
    for number in range(ROUNDS):  # from the second on, the owner of the round before was killed
        many = 2 + number % 7
        barrier, answers = FORK.Barrier(many), FORK.Queue()
        processes = [FORK.Process(target=owning, args=(resolved, path, barrier, answers)) for _ in range(many)]
        for process in processes:
            process.start()
        told = [answers.get(timeout=30) for _ in range(many)]
        owners = [process for process, _, busy, _ in told if not busy]
        os.kill(owners[0], signal.SIGKILL)
        for process in processes:
            process.join(10)
        assert len(owners) == 1, told
        said = rf"{path}: busy, owned by process {owners[0]} on {re.escape(socket.gethostname())}; wait for it or .*"
        assert all(re.fullmatch(said, busy) and code == 5 for _, _, busy, code in told if busy), told
        slowest = max(slowest, *(seconds for _, seconds, _, _ in told))
    assert slowest <= 2
    print(f"\n{ROUNDS} rounds of 2 to 8 processes, the slowest was told after {slowest:.2f} s")
