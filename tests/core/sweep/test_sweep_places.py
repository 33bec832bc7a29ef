"""Where a sweep writes, and where it does not: what is refused before a process is started."""

import os
from pathlib import Path

import pytest
from helpers.command import lwmfw

from lwmfw.testing import tiny_recipe


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe({}, tmp_path)


@pytest.mark.parametrize("name", ["s1.log", "s1.toml.tmp", "s1.failed", ".sweep", ".plugins", ".aside", ".slurm"])
@pytest.mark.parametrize("sort", ["link", "pipe"])
def test_a_sweep_writes_nowhere_else_and_waits_for_nothing(name, sort, recipe):
    """A cell's own directory may lie elsewhere: the run in it looks after that itself."""
    Path("sweep").mkdir()
    Path("sweep/.sweep").touch()
    Path("sweep", name).unlink(missing_ok=True)
    folder = name in (".plugins", ".aside", ".slurm")
    Path("victim").mkdir() if folder else Path("victim").write_text("precious")
    Path("disk").mkdir()
    Path("sweep/s1").symlink_to("../disk")
    if sort == "link":
        Path("sweep", name).symlink_to("../victim")
    else:
        os.mkfifo(Path("sweep", name))
    done = lwmfw("sweep", recipe, "--seeds", "1", "--out", "sweep")
    if (sort, name) == ("pipe", ".sweep"):
        assert (done.returncode, done.stderr) == (2, "sweep: not empty and no sweep's; choose another --out\n")
    else:
        what = "a link that leads out of the sweep's folder; put" if sort == "link" else "no regular file; remove it"
        assert done.returncode == 4
        assert done.stderr.startswith(f"sweep/{name}: is {what}")
    assert (list(Path("victim").iterdir()) == []) if folder else (Path("victim").read_text() == "precious")


def test_a_file_of_a_cell_that_cannot_be_written_is_told_with_another_place(recipe):
    Path("sweep").mkdir()
    Path("sweep/.sweep").touch()
    Path("sweep/s1.log").mkdir()
    done = lwmfw("sweep", recipe, "--seeds", "1", "--out", "sweep")
    said = "sweep/s1.log: cannot be written: Is a directory; choose another --out\n"
    assert (done.returncode, done.stderr) == (2, said)
