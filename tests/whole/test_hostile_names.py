"""Names that mean harm, of runs, recipes, classes, files, plug-ins and components: nothing leaves the run directory, no
terminal obeys them, no spreadsheet computes them, and results can be read.

The fast set takes every 50th of the 500, `-m slow` all.
"""

import csv
import io
import json
import os
import random
import re
import unicodedata

import pytest
from helpers.command import lwmfw
from helpers.pictures import one_jpeg

from lwmfw import Penalty, UserError
from lwmfw.recipe.catalogue import record_fault
from lwmfw.recipe.load import load_recipe
from lwmfw.record.reading import RecordedRun
from lwmfw.record.results import cell
from lwmfw.testing import tiny_recipe, tiny_run

PIECES = [
    "\x1b[31m", "\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "\x90q", "\r", "\n", "\t", "\b", "\x7f", "\x0c", "\x85", "\0",
    "\u202e", "\u2066", "\u200f", "\u2028", "\u061c", "\ufeff", "\udce9", "\udcff\udcfe", "=1+1", "+1", "-1",
    "@SUM(A1)",
    "=cmd|' /C calc'!A0", '=HYPERLINK("x")', "..", "../..", "../../etc/passwd", "/etc/passwd", "\\..\\x", "C:", "CON",
    "nul.txt", "LPT1", "com9.tar", "aux", "a.", "a ", " a", "~", "$HOME", "`id`", "$(id)", ";id", "|id", "&", "'", '"',
    "<b>x</b>", "%n%s", "{0}", "{name}", "*", "?", "-rf", "--help", "--", "é", "e\u0301", "😀", "می\u200cخواهم",
    "界" * 85,
    "a" * 255, "a" * 300, ".hidden", "", ".", "[bold]x[/bold]", "[red]", ":", "#", ",", "a,b", "a;b", "train", "\\x1b",
]  # fmt: skip
DRAW = random.Random(0)
NAMES = [*PIECES, *("".join(DRAW.sample(PIECES, DRAW.choice((2, 2, 3)))) for _ in range(500 - len(PIECES)))]
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal takes for more than a letter; lines are ours."""

amounts = pytest.mark.parametrize(
    "every", [50, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1500)])], ids=["some", "all"]
)


def can_be_a_file(name):
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    return len(name.encode(errors="surrogateescape")) <= 250


def some(every, suffix=""):
    """Names that files can have here, no two alike by the rules of classes."""
    found = {}
    for name in NAMES[::every]:
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold().strip())
        if can_be_a_file(name + suffix):
            found.setdefault(alike, name + suffix)
    return list(found.values())


def below(folder):
    return {os.path.join(path, name) for path, folders, files in os.walk(folder) for name in (*folders, *files)}


def clean(*answers):
    for done in answers:
        assert done.returncode in (0, 2), done.stderr[-2000:]
        for text in (done.stdout, done.stderr):
            assert not OBEYED.findall(text), ascii(text)
        assert "Traceback" not in done.stderr


def test_there_are_five_hundred_names():
    assert len(NAMES) == 500
    assert len(some(1)) > 250


PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{,99}")
RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?|.*\.", re.IGNORECASE)
"""What Windows refuses as the name of a folder."""


@amounts
def test_names_of_recipes_and_components_are_plain_or_refused(every, tmp_path):
    """What `runs/NAME` is made of is no way out of runs."""
    recipe = tiny_recipe({}, tmp_path)
    for name in {*NAMES[::every], "CON", "nul.txt", "Lpt1", "a.", "..", "-rf", "../x", "plain", "console"}:
        fault = record_fault(Penalty(name, object))
        assert (fault == "") == bool(PLAIN.fullmatch(name)), name
        assert not OBEYED.findall(fault)
        named = {"as": {"penalties": [{"use": "L_D", "as": name}]}, "recipe": {"name": name}}
        for kind, settings in named.items():
            if PLAIN.fullmatch(name) and not (kind == "recipe" and RESERVED.fullmatch(name)):
                load_recipe(recipe, settings)
                continue
            with pytest.raises(UserError) as refused:
                load_recipe(recipe, settings)
            assert not OBEYED.findall(str(refused.value))


@amounts
def test_files_of_recipes_and_plug_ins_can_have_any_name(every, tmp_path):
    text = tiny_recipe({}, tmp_path).read_text().replace('name = "tiny"', "")
    for name in some(every, ".toml"):
        with open(name, "w", encoding="utf-8") as stream:
            stream.write(text)
        plugin = f"{name}.py"
        with open(plugin, "w", encoding="utf-8") as stream:
            stream.write("1 / 0")
        clean(lwmfw("check", "--", f"./{name}"), lwmfw("plugins", "--plugins", f"./{plugin}"))
        clean(lwmfw("check", f"--plugins=./{plugin}", "--", f"./{name}"))
    assert not (tmp_path / "runs").exists()


@amounts
def test_what_is_not_there_is_told_in_letters(every):
    for name in NAMES[::every]:
        if "\0" not in name and not name.startswith("-"):
            clean(lwmfw("check", name), lwmfw("resume", f"./{name}"), lwmfw("predict", f"./{name}", f"./{name}"))
            clean(lwmfw("compare", f"./{name}"))
    assert os.listdir() == []


@amounts
def test_classes_and_images_can_have_any_name(every, tmp_path):
    names = [name for name in some(every) if not name.startswith(".") and name.strip() != "train"]
    picture = one_jpeg()
    for name in names:
        os.makedirs(os.path.join("images", name))
        for number in range(2):
            with open(os.path.join("images", name, f"{name[:80]}{number}.jpg"), "wb") as stream:
                stream.write(picture)
    os.mkdir("made")
    data = {"use": "folder", "root": str(tmp_path / "images"), "size": 8, "decode": "once"}
    readouts = {"readouts": [{"use": "ncm"}], "scenario": {"first": 0}, "observers": [{"use": "console"}]}
    recipe = tiny_recipe({"data": data, "console": True} | readouts, tmp_path)
    before = below(tmp_path)
    clean(lwmfw("run", recipe, "--out", "made/run"))
    assert {path for path in below(tmp_path) - before if not path.startswith(str(tmp_path / "made/run"))} == set()
    assert sorted(RecordedRun("made/run").class_names) == sorted(names)
    assert sorted(json.loads((tmp_path / "made/run/results.json").read_text())["class_names"]) == sorted(names)
    shown = lwmfw("predict", "made/run", "images")
    clean(shown, lwmfw("compare", "made/run"), lwmfw("report", "made/run"))
    assert not OBEYED.findall((tmp_path / "made/run/report.html").read_text())
    assert len(shown.stdout.splitlines()) == 2 * len(names) + 1
    listed = lwmfw("predict", "made/run", "images", "--csv")
    clean(listed)
    rows = list(csv.reader(io.StringIO(listed.stdout)))[1:]
    assert len(rows) == 2 * len(names)
    assert not [text for _, _, text, *_ in rows if text.startswith(("=", "+", "-", "@"))]
    asked = json.loads(lwmfw("predict", "made/run", "images", "--json").stdout)
    assert {answer["classes"][0]["class"] for answer in asked} <= set(names)
    for path in (tmp_path / "images").rglob("*0.jpg"):
        path.write_bytes(b"no image")
    clean(lwmfw("predict", "made/run", "images"), lwmfw("run", recipe, "--out", "other"))


def test_directories_of_runs_can_have_any_name(tmp_path):
    names = some(12)
    tiny_run(folder=tmp_path)
    text = (tmp_path / "run" / "results.json").read_text()
    for seed, name in enumerate(names):
        os.mkdir(name)
        with open(os.path.join(name, "results.json"), "w", encoding="utf-8") as stream:
            stream.write(text.replace('"seed": 1', f'"seed": {seed}'))
    table = lwmfw("compare", "--", *names)
    listed = lwmfw("compare", "--format", "csv", "--", *names)
    clean(table, listed, lwmfw("report", "--", *names))
    cells = [row[0] for row in csv.reader(io.StringIO(listed.stdout))][1:]
    assert set(cells) == set(map(cell, names))
    assert not [text for text in cells if text.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    ("text", "written"),
    [("=1", "'=1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("\t=1", r"'\u0009=1"), ("a=1", "a=1"), ("é", "é")],
)
def test_a_cell_is_no_formula(text, written):
    assert cell(text) == written
