"""What a command does when a signal ends it, at whatever moment, and when a standard stream is closed or full."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.command import ENDING, ENVIRONMENT, lwmfw
from helpers.months import CLASSES, pictures
from helpers.plugin_files import penalty_file

from lwmfw.cli import process
from lwmfw.cli.process import interruptible
from lwmfw.errors import Interrupted, OutputFailed
from lwmfw.testing import tiny_recipe, tiny_run

LOUD = {"observers": [{"use": "console"}]}


@pytest.fixture(autouse=True)
def _heard():
    """Signals that a background job or nohup ignores, and whoever it starts with it, are heard in these tests."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with sums in `run`, which goes on with other classes in `one` and `two`; more pictures in `of/new`."""
    folder = tmp_path_factory.mktemp("finished")
    pictures(folder / "first", CLASSES["months"], count=4)
    data = {"use": "folder", "root": str(folder / "first"), "size": 8, "decode": "once"}
    tiny_run({"data": data, "scenario": {"first": 0, "increment": 0}, "readouts": [{"use": "ncm"}]}, folder)
    for name, place in {"dog": "one", "elk": "two", "fox": "new"}.items():
        pictures(folder / "of" / place, [name], count=4)
    for place in ("one", "two"):
        lwmfw("extend", folder / "run", "--data", folder / "of" / place, "--out", folder / place)
    return folder


def run_with(folder, hook, **tables):
    """Run a recipe with a penalty that does something in a hook."""
    name, _, body = hook.partition(": ")
    penalty_file(folder, f"@hookimpl\ndef {name}(self):\n    import os, signal\n    {body}\n")
    recipe = tiny_recipe({"plugins": ["probe.py"], "penalties": [{"use": "probe"}]} | tables, folder)
    return lwmfw("run", recipe, "--out", "run")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_run_in_one_line_with_its_own_code(number, tmp_path):
    done = run_with(tmp_path, f"compute_penalty: os.kill(os.getpid(), {int(number)})")
    assert done.returncode == 128 + number
    kept = "1 finished step is kept, and step 2 as far as it had come; go on with `lwmfw resume run`"
    assert done.stderr == f"run: interrupted in step 2, epoch 1, batch 1; {kept}\n"


def test_the_command_that_goes_on_can_be_given_as_it_is_told(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    with patch("lwmfw.loop.learn", side_effect=KeyboardInterrupt):
        done = lwmfw("run", recipe, "--out", "my runs/a b")
    told = re.search("`(.*)`", done.stderr)[1]
    assert told == "lwmfw resume 'my runs/a b'"
    assert lwmfw(*shlex.split(told)[1:]).returncode == 0


@pytest.mark.parametrize("verb", ["run", "extend", "merge"])
def test_a_signal_while_the_report_is_drawn_is_told_with_what_is_true(verb, finished, tmp_path):
    """The run has ended: its path is named, its results are printed, and its report can be drawn."""
    command = {
        "run": ("run", finished / "tiny.toml"),
        "extend": ("extend", finished / "run", "--data", finished / "of" / "new"),
        "merge": ("merge", finished / "one", finished / "two"),
    }[verb]
    for options in ((), ("--out", "my run")):
        with patch("lwmfw.showing.report.report", side_effect=lambda *_: signal.raise_signal(signal.SIGTERM)):
            done = lwmfw(*command, *options, report=True)
        assert done.returncode == 143
        assert done.stdout
        place, said = done.stderr.splitlines()[-1].split(": ", 1)
        shows, draws = re.findall("`lwmfw (.*?)`", said)
        assert said == (
            f"interrupted, but the run has ended; `lwmfw {shows}` shows its results, `lwmfw {draws}` draws its report"
        )
        assert (Path(place) / "DONE").exists()
        for told in (shows, draws):
            assert lwmfw(*shlex.split(told)).returncode == 0
        assert (Path(place) / "report.html").exists()


def test_results_that_nobody_reads_cost_no_report(finished):
    with patch("lwmfw.cli.act.print_json", side_effect=OutputFailed("standard output: gone", 141)):
        done = lwmfw("run", finished / "tiny.toml", "--out", "run", "--json", report=True)
    assert (done.returncode, done.stderr.splitlines()[0]) == (141, "report in run/report.html")


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        ("before_run", "no finished step is kept; go on with `lwmfw resume run`"),
        ("before_step", "step 1 is kept as far as it had come; go on with `lwmfw resume run`"),
        ("after_step", "1 finished step is kept; go on with `lwmfw resume run`"),  # it waits for its checkpoint
        ("after_run", "the run has ended, `lwmfw compare run` shows its results"),
    ],
)
def test_what_is_said_to_be_kept_is_in_a_checkpoint(moment, kept, tmp_path):
    done = run_with(tmp_path, f"{moment}: os.kill(os.getpid(), signal.SIGTERM)")
    assert done.returncode == 143
    assert done.stderr.endswith(f"; {kept}\n")
    assert lwmfw("resume", "run").returncode == (2 if moment == "after_run" else 143)


def test_what_other_code_makes_of_an_interruption_is_no_fault(tmp_path):
    turned = "try: os.kill(os.getpid(), signal.SIGTERM)\n    except KeyboardInterrupt: raise RuntimeError('of C++')"
    done = run_with(tmp_path, f"before_run: {turned}")
    assert (done.returncode, done.stderr.count("\n")) == (143, 1)
    assert done.stderr.startswith("interrupted; no file is left half written")


def test_an_interruption_that_other_code_swallows_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_AGAIN", 0.05)
    swallowed = (
        "try: os.kill(os.getpid(), signal.SIGTERM)\n    except KeyboardInterrupt: pass\n    import time; time.sleep(9)"
    )
    done = run_with(tmp_path, f"before_run: {swallowed}")
    assert done.returncode == 143
    assert done.stderr.startswith("run: interrupted before the first step; no finished step is kept")


THROUGH_C = """
import ctypes, os, signal, sys
from lwmfw.cli.process import interruptible
from lwmfw.errors import Interrupted, OutputFailed

run = ctypes.pythonapi.PyRun_String
run.restype, run.argtypes = ctypes.py_object, (ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object)
try:
    with interruptible():
        run(b"os.kill(os.getpid(), signal.SIGTERM)", 257, globals(), globals())
except Interrupted as error:
    sys.exit(error.exit_code)
"""
"""Libraries start so: their C code runs Python."""


def test_an_interruption_that_comes_up_through_code_in_c_ends_with_its_own_code(tmp_path):
    (tmp_path / "probe.py").write_text(THROUGH_C)
    done = subprocess.run([sys.executable, "-m", "probe"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")


def test_nobody_who_is_ending_is_interrupted_again(monkeypatch):
    monkeypatch.setattr(process, "_AGAIN", 0.02)
    ended = []

    @interruptible()
    def verb():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            time.sleep(0.1)
            ended.append("well")

    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Interrupted):
        verb()
    assert ended == ["well"]
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_signal_that_comes_twice_is_one_interruption():
    @interruptible()
    def verb():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as ended:
        verb()
    assert ended.value.exit_code == 129


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` starts a program
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_that_is_not_the_main_one_hears_of_no_signal_and_runs_all_the_same():
    found = []

    def verb():
        with interruptible():
            found.append("done")

    thread = threading.Thread(target=verb)
    thread.start()
    thread.join()
    assert found == ["done"]


BROKEN = "r, w = os.pipe(); os.close(r); os.dup2(w, {0}); os.close(w)"
FULL = "w = os.open('/dev/full', os.O_WRONLY); os.dup2(w, {0}); os.close(w)"


@pytest.mark.parametrize("fault", [BROKEN, FULL], ids=["nobody reads", "full"])
def test_training_goes_on_when_progress_cannot_be_written(fault, tmp_path):
    done = run_with(tmp_path, f"before_step: {fault.format(2)}", **LOUD)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (BROKEN, 141, ""),  # as if SIGPIPE had ended it
        (FULL, 1, "standard output: No space left on device; free some space or print elsewhere\n"),
    ],
    ids=["nobody reads", "full"],
)
def test_results_that_cannot_be_printed_end_the_command(fault, code, said, tmp_path):
    done = run_with(tmp_path, f"after_run: {fault.format(1)}")
    assert (done.returncode, done.stderr) == (code, said)
    assert (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize(("closed", "code"), [("2>&-", 2), (">&-", 2), ("<&- >&- 2>&-", 2)])
def test_streams_that_are_closed_from_the_start_do_no_harm(closed, code):
    command = f"{sys.executable} -m lwmfw recipes lmw {closed}"
    done = subprocess.run(  # noqa: S602
        command, shell=True, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr == ("" if "2>&-" in closed else "no shipped recipe 'lmw'; did you mean 'lwm'?\n")
