"""What permissions refuse, as in a run of a colleague's, is told of in a line."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.command import lwmfw
from helpers.permissions import as_anybody
from helpers.pictures import noise, save

from lwmfw.testing import tiny_recipe

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


IN_A_LOCKED_FOLDER = {
    "run": ("run", "RECIPE", "--out", "locked/run"),
    "resume": ("resume", "locked/run"),
    "predict": ("predict", "locked/run", "image.png"),
    "the plan of a sweep": ("sweep", "RECIPE", "--out", "locked/sweep", "--seeds", "1", "--dry-run"),
    "recipes": ("recipes", "lwm", "--copy", "locked/recipes"),
    "export": ("export", "run", "--format", "pt2", "--out", "locked/x.pt2"),
    "adopt": ("adopt", "--weights", "locked/w.pth", "--classes", "classes.txt"),
}


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("case", IN_A_LOCKED_FOLDER)
def test_a_place_in_a_folder_that_nobody_may_enter_is_refused_in_a_line(case, tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    save(noise(8, 8), "image.png")
    Path("classes.txt").write_text("a\nb\n")
    Path("locked").mkdir()
    Path("locked").chmod(0)
    with as_anybody():
        said = lwmfw(*(recipe if word == "RECIPE" else word for word in IN_A_LOCKED_FOLDER[case]))
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    assert said.stderr.count("\n") == 1
    assert "locked" in said.stderr


@pytest.mark.parametrize("words", [("adopt", "--weights", "LONG"), ("sweep", "RECIPE", "--out", "LONG", "--dry-run")])
def test_a_name_that_is_too_long_is_refused_in_a_line(words, tmp_path):
    recipe, long = tiny_recipe({}, tmp_path), "a" * 300
    said = lwmfw(
        *({"LONG": long, "RECIPE": recipe}.get(word, word) for word in words),
        *(["--classes", recipe] * (words[0] == "adopt")),
    )
    assert said.returncode == 2, said.stderr
    assert said.stderr.count("\n") == 1
