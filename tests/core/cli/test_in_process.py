"""The command line that tests start in their own process says what a process says, and leaves nothing behind."""

import os
import signal
import sys
import warnings

import pytest
import torch
from helpers.command import lwmfw, lwmfw_process
from helpers.plugin_files import penalty_file

from lwmfw.testing import tiny_recipe

MEDDLING = """
@hookimpl
def compute_penalty(self, new):
    import os, signal, sys, warnings
    os.environ["LEFT"] = "behind"
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    sys.argv.append("more")
    torch.set_num_threads(2)
    os.write(1, b"said in C\\n")
    os.write(2, b"complained in C\\n")
    print("said")
    print("complained", os.getenv("COLUMNS"), sys.stdout.isatty(), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["recipes"], ["recipes", "lmw"], ["run", "gone.toml"], ["plugins", "L_AD"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_it_says_what_a_process_says(arguments):
    here, there = lwmfw(*arguments), lwmfw_process(*arguments)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)


def state():
    filters, handlers = list(warnings.filters), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    streams, python = (sys.stdout, sys.stderr), (list(sys.argv), sys.excepthook)
    return (
        *(dict(os.environ), os.getcwd(), os.fstat(1).st_ino, os.fstat(2).st_ino),
        *(streams, python, filters, handlers),
        *(torch.get_num_threads(), torch.random.get_rng_state().tolist()),
    )


def test_it_leaves_the_process_as_it_was_and_hears_what_is_written_past_python(tmp_path):
    penalty_file(tmp_path, MEDDLING)
    recipe = tiny_recipe({"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}, tmp_path)
    before = state()
    done = lwmfw("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for found, known in zip(state(), before, strict=True):
        assert found == known
    assert "said in C\n" in done.stdout
    assert "said\n" in done.stdout
    assert "complained in C\n" in done.stderr
    assert "complained 120 False\n" in done.stderr
