"""A file that is larger than any of its kind is refused before it is read: memory does not follow files."""

import os
import re
from pathlib import Path

import pytest
from helpers.command import lwmfw

HUGE = 1 << 40
"""Bytes that no process is given, of a file that takes none of the disk."""


def huge(file):
    Path(file).touch()
    os.truncate(file, HUGE)
    return str(file)


def test_what_is_no_results_at_all():
    """As a file of tensors may be that was named instead."""
    said = lwmfw("compare", huge("tensors.safetensors"))
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "tensors.safetensors: larger than 2048 MiB, as no such file of a run is; name another\n"


_LARGER = "larger than {} MiB, as no such file of a run is"
REFUSED = {
    "results.json": ("compare", f"{_LARGER.format(2048)}; put back what the run has written"),
    "resolved.toml": ("compare", f"{_LARGER.format(16)}; restore it or start the run anew"),
    "SHA256SUMS": ("compare", f"{_LARGER.format(16)}; put it back, or remove it"),
    "checkpoints/step-0002/state.json": ("export", f"{_LARGER.format(2048)}; restore it or"),
    "checkpoints/step-0002/manifest.json": ("export", "damaged; restore it or start the run anew"),
}


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_a_run_is_told_as_a_damaged_one(name):
    verb, message = REFUSED[name]
    huge(f"run/{name}")
    said = lwmfw(verb, "run", *["--format", "pt2"] * (verb == "export"))
    assert (said.returncode, said.stdout) == (4, "")
    assert re.fullmatch(f"run/{name}: {re.escape(message)}.*\n", said.stderr), said.stderr


@pytest.mark.usefixtures("copy")
def test_the_log_of_a_run():
    huge("run/metrics.jsonl")
    said = lwmfw("report", "run", "--out", "r.html")
    message = "larger than 2048 MiB, as no such file of a run is; name another"
    assert (said.returncode, said.stderr) == (2, f"run/metrics.jsonl: {message}\n")


@pytest.mark.usefixtures("copy")
def test_an_environment_and_pictures_are_left_out_of_a_report():
    for name in ("env.json", "synthetic.png", "memory/original-0.png"):
        Path("run", name).parent.mkdir(exist_ok=True)
        huge(f"run/{name}")
    assert lwmfw("report", "run", "--out", "r.html").returncode == 0


def test_a_plug_in_file():
    said = lwmfw("plugins", "--plugins", huge("big.py"))
    assert (said.returncode, said.stderr) == (2, "big.py: larger than 16 MiB; a plug-in file is a Python module\n")
