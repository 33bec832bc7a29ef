"""What permissions refuse, as in a run of a colleague's, is told of in a line."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.command import lwmfw
from helpers.permissions import as_anybody
from helpers.pictures import noise, save

from lwmfw.testing import tiny_run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run."""
    return tiny_run({}, tmp_path_factory.mktemp("done")).path


@pytest.fixture
def copy(done):
    """A copy of it, to be spoilt."""
    shutil.copytree(done, "run")


UNREADABLE = [
    ("results.json", "compare"),
    ("results.json", "report"),
    ("results.json", "plot"),
    ("resolved.toml", "compare"),
    ("resolved.toml", "predict"),
    ("SHA256SUMS", "compare"),
    ("metrics.jsonl", "report"),
]
MORE = {"report": ["--out", "r.html"], "plot": ["--out", "p.svg"], "predict": ["image.png"]}


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(("name", "verb"), UNREADABLE)
def test_a_file_of_a_run_that_may_not_be_read_is_told_of_in_a_line(name, verb):
    (Path("run") / name).chmod(0)
    save(noise(8, 8), "image.png")
    with as_anybody():
        said = lwmfw(verb, "run", *MORE.get(verb, ()))
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"run/{name}: cannot be read: Permission denied; have it made readable, or name another\n"


@pytest.mark.usefixtures("copy")
def test_an_environment_and_a_picture_that_may_not_be_read_are_left_out_of_a_report():
    for name in ("env.json", "synthetic.png", "memory"):
        (Path("run") / name).touch()  # memory may be a folder there already
        (Path("run") / name).chmod(0)
    with as_anybody():
        said = lwmfw("report", "run", "--out", "r.html")
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("report", "run"), "run/report.html"),
        (("plot", "run", "--out", "locked/x.svg"), "locked/x.svg"),
        (("export", "run", "--format", "pt2", "--out", "locked/x.pt2"), "locked/x.pt2.unchecked"),
    ],
)
def test_where_nothing_may_be_written_another_place_is_asked_for(words, place):
    """Also where that comes out when it is written, as on some disks of a network."""
    Path("locked").mkdir()
    for folder in ("run", "locked"):
        Path(folder).chmod(0o555)
    with as_anybody(), patch("os.access", return_value=True):
        said = lwmfw(*words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"{place}: cannot be written: Permission denied; choose another --out\n"
    with as_anybody(), patch("os.access", lambda place, mode: mode != os.W_OK):
        said = lwmfw(*words)
    why = "its folder cannot be written in; have it made writable, or choose another --out"
    assert (said.returncode, said.stderr) == (2, f"{place.removesuffix('.unchecked')}: {why}\n")
