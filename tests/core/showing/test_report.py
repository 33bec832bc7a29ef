"""The page of a run: whole, for anyone, and never the end of a run."""

import json
import os
import random
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from helpers import ROOT
from helpers.command import lwmfw
from helpers.results import THREE, results_of
from helpers.runs import THREE_STEPS, halted

from lwmfw import UserError, report
from lwmfw.memory.store import Memory
from lwmfw.record.reading import RecordedRun
from lwmfw.showing import attention_figure, single
from lwmfw.showing.exemplars import evenly_spread, in_colours, nearest_of
from lwmfw.showing.report import page
from lwmfw.testing import tiny_recipe

MEASURED = ROOT / "docs" / "measured"
WITH_MEMORY = THREE_STEPS | {
    "memory": {"budget": "4 per class", "select": {"use": "random"}, "codec": {"use": "jpeg"}},
    "readouts": [{"use": "cnn"}, {"use": "nme"}, {"use": "ncm"}],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with exemplars and sums, which the command line has trained and reported; and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    done = lwmfw("run", tiny_recipe(WITH_MEMORY, folder), "--out", folder / "run", report=True)
    assert done.returncode == 0, done.stderr
    return folder / "run", done


class Page(HTMLParser):
    """What a page has, and whether it is well formed."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, *tags):
        return [attrs for tag, attrs in self.tags if tag in tags]

    @property
    def headings(self):
        return [tag for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]


def checked(file):
    """A page that needs nothing else and is for everyone; returns it."""
    text = file.read_text()
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert not page.all("script", "iframe", "object", "form")
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    for attrs in (attrs for _, attrs in page.tags):
        for place in (attrs.get("src"), attrs.get("href"), attrs.get("xlink:href")):
            assert place is None or place.startswith("data:") or place.removeprefix("#") in ids, place
    assert "url(http" not in text
    assert page.all("html") == [{"lang": "en"}]
    assert page.headings[0] == "h1"
    assert set(page.headings[1:]) == {"h2"}
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["role"] == "img" for attrs in page.all("svg"))
    assert len(page.all("title")) == len(page.all("svg")) + 1
    assert len(page.all("desc")) == len(page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    return page


def sections(page):
    return [attrs["aria-labelledby"] for attrs in page.all("section")]


def test_a_run_ends_with_its_report(trained):
    run, done = trained
    assert f"report in {run}/report.html" in done.stderr.splitlines()
    page = checked(run / "report.html")
    assert sections(page) == [
        *("accuracy", "classes", "training", "memory", "readouts", "cost", "origin", "recipe", "environment"),
    ]
    assert len(page.all("svg")) == 8
    assert len(page.all("img")) == 12, "a strip of exemplars for each class, and what they were"
    words = " ".join(page.words)
    results = json.loads((run / "results.json").read_text())
    for who in ("cnn", "nme", "ncm"):
        assert f"{results['last_accuracy'][who]:.3f}" in words
    assert (run / "resolved.toml").read_text() in "".join(page.words)
    assert (run / "report.html").stat().st_size < 600_000
    assert "carried over" in words or "not exact" in words


def test_it_is_the_same_page_each_time_and_from_python_too(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "copy")
    before = (run / "report.html").read_bytes()
    assert report(run) == run / "report.html"
    assert (run / "report.html").read_bytes() == before
    assert report(str(run), out="here.html") == Path("here.html")
    assert Path("here.html").read_bytes() == before


def test_results_alone_have_what_they_know(trained, tmp_path):
    shutil.copy(trained[0] / "results.json", "results.json")
    done = lwmfw("report", "results.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "report.html\n", "")
    page = checked(tmp_path / "report.html")
    assert sections(page) == ["accuracy", "classes", "memory", "readouts", "cost", "origin", "environment"]


@pytest.mark.slow
def test_a_hundred_classes_are_a_page_of_a_few_hundred_kilobytes(tmp_path):
    report(MEASURED / "cifar100-b50" / "podnet-cbam-mem-1993.json", out="b50.html")
    checked(tmp_path / "b50.html")
    assert (tmp_path / "b50.html").stat().st_size < 300_000


def test_several_runs_are_put_side_by_side_with_their_seeds_as_one(tmp_path):
    files = sorted(MEASURED.glob("fashion-mnist-mini/lw*-*.json"))
    assert lwmfw("report", *files, "--out", "both.html").returncode == 0
    page = checked(tmp_path / "both.html")
    assert sections(page) == ["comparison", "curves", "costs", "runs"]
    assert "0.531 ± 0.062" in page.words
    assert "lwf-mc, lwm" in page.words


def test_a_run_that_has_not_ended_has_a_report(tmp_path):
    run = halted(tmp_path, WITH_MEMORY | {"readouts": [{"use": "cnn"}]})
    report(run)
    page = checked(run / "report.html")
    assert any("1 step, not finished" in words for words in page.words)
    assert "memory" in sections(page)


def test_images_held_out_are_not_called_test_images(trained, tmp_path):
    run = RecordedRun(trained[0])
    assert "of the test images of all" in single.headline(run)[0]
    run.tables = run.tables | {"evaluation": {"validation": 0.1}}
    assert "of the images held out from training of all" in single.headline(run)[0]


def test_a_run_without_a_finished_step_is_refused(tmp_path):
    run = halted(tmp_path, {}, after=0)
    done = lwmfw("report", run)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{run}: no results.json; the run has not finished a step\n"


def test_a_report_that_cannot_be_written_costs_no_run(tmp_path):
    recipe = tiny_recipe({"plugins": ["sit.py"], "observers": [{"use": "sit"}]}, tmp_path)
    (tmp_path / "sit.py").write_text(
        "from lwmfw import Observer, hookimpl\n"
        "class Sit:\n"
        "    def __init__(self, options): pass\n"
        "    @hookimpl\n"
        "    def after_run(self, run): run.directory.write('report.html', b'mine')\n"
        "@hookimpl\n"
        "def register_components(): yield Observer('sit', Sit)\n"
    )
    done = lwmfw("run", recipe, "--out", "run", report=True)
    assert done.returncode == 0
    assert done.stdout.startswith("accuracy")
    assert done.stderr.splitlines()[-1] == (
        f"no report: {tmp_path}/run/report.html: is there, and no earlier one of lwmfw; choose another --out; "
        "the run is whole, `lwmfw report run` tries again"
    )
    assert Path("run/report.html").read_bytes() == b"mine"
    assert Path("run/DONE").exists()


def test_nothing_is_written_over_or_outside(trained, tmp_path):
    Path("notes.html").write_text("<!doctype html><title>lwmfw</title>")
    for place, said in {
        "notes.html": "notes.html: is there, and no earlier one of lwmfw; choose another --out",
        "gone/x.html": "gone/x.html: its folder is not there; make it, or choose another --out",
        ".": ".: is there, and no earlier one of lwmfw; choose another --out",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            report(MEASURED / "fashion-mnist-mini" / "lwm-1993.json", out=place)
    run = shutil.copytree(trained[0], tmp_path / "run")
    said = "its folder cannot be written in; have it made writable, or choose another --out"
    with patch("os.access", return_value=False), pytest.raises(UserError, match=f"{run}/report.html: {said}"):
        report(run)
    (run / "report.html").unlink()
    (run / "report.html.tmp").symlink_to(tmp_path / "outside")
    assert lwmfw("report", run).returncode == 4
    assert not (tmp_path / "outside").exists()


def test_hostile_names_are_shown_harmless(tmp_path):
    names = ["<script>alert(1)</script>", "a\u202eb", "</svg><img src=x onerror=y>", "{{ 7 * 7 }}", "é" * 127, "\ud800"]
    results = results_of(THREE, recipe="</title><script>", who=("cnn", "<b>"))
    results.class_names = names
    results.providers = {"</table>": "\x1b[31m"}
    Path("results.json").write_text(results.to_text())
    report("results.json")
    page, text = checked(tmp_path / "report.html"), Path("report.html").read_text()
    assert not re.search("[\x00-\x08\x1b\u202e\ud800]", text)
    assert "<script>alert(1)</script>" in page.words
    assert r"a\u202eb" in page.words
    assert "{{ 7 * 7 }}" in page.words


def test_pictures_of_components_are_part_of_the_page_unless_they_lie_elsewhere(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    png = b"\x89PNG\r\n\x1a\n" + bytes(8) + (3).to_bytes(4, "big") + (2).to_bytes(4, "big") + bytes(9)
    for name in ("ncm.png", "nme/step-2.png", "nme/step-10.png", "unknown.png"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(png)
    (run / "cnn.png").write_bytes(b"no picture")
    (found,) = [section for section in single.sections(RecordedRun(run)) if section.id == "pictures"]
    pictures = [(each.title, picture.size) for each in found.pictures for picture in each.pictures]
    assert pictures == [("nme/step-10.png", (3, 2)), ("ncm.png", (3, 2))]


def test_the_page_says_neither_the_command_line_nor_a_password(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "copy")
    facts = json.loads((run / "env.json").read_text())
    assert facts["argv"]
    (run / "env.json").write_text(
        json.dumps(facts | {"argv": ["run", "/home/somebody"], "asked": ["http://me@host/a"]})
    )
    recorded = RecordedRun(run)
    recorded.tables = recorded.tables | {"observers": [{"use": "mlflow", "uri": "https://me:pass@word@host:5000/a@b"}]}
    text = page([recorded])
    assert "somebody" not in text
    assert re.findall(r"https?://\S*@host\S*?(?=&|<)", text) == ["https://***@host:5000/a@b", "http://***@host/a"]


def test_who_asks_for_a_report_has_the_random_numbers_that_were_there(trained, tmp_path, monkeypatch):
    drawn, some = [], Memory.some
    # what is loaded with a memory for the first time may draw, which no test finds in a process of many
    monkeypatch.setattr(Memory, "some", lambda *given: drawn.append(random.random()) or some(*given))
    before = random.getstate()
    report(trained[0], out=tmp_path / "here.html")
    assert drawn
    assert random.getstate() == before


def test_exemplars_that_cannot_be_read_are_said_to_be(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (found,) = [section for section in single.sections(RecordedRun(run)) if section.id == "memory"]
    assert not found.thumbs
    assert found.words == [
        f"The exemplars cannot be read: {run}: holds no checkpoint; name a run directory that still has its checkpoints"
    ]


def test_what_exemplars_were_is_the_nearest_image_of_their_class():
    images = torch.tensor([[0, 0], [250, 0], [9, 9]], dtype=torch.uint8).view(3, 1, 1, 2)
    stored = torch.tensor([[0, 2], [5, 12], [255, 0]], dtype=torch.uint8).view(3, 1, 1, 2)
    assert nearest_of(stored, images).equal(images[[0, 2, 1]])
    assert evenly_spread(range(100), 4) == [0, 33, 66, 99]
    assert evenly_spread([3, 5], 4) == [3, 5]


@pytest.mark.parametrize(("channels", "shown"), [([7], [7, 7, 7]), ([2, 6], [4, 4, 4]), ([1, 2, 3, 4, 5], [1, 2, 3])])
def test_images_of_any_channels_have_colours_by_one_rule(channels, shown):
    pixels = torch.tensor(channels, dtype=torch.uint8)[:, None, None].expand(-1, 2, 2)
    assert in_colours(pixels)[:, 0, 0].tolist() == shown
    drawn = torch.tensor(shown) / 255
    assert attention_figure._rgb(pixels)[0, 0].equal(drawn)


def test_plot_draws_one_picture(trained, tmp_path):
    run = trained[0]
    done = lwmfw("plot", run)
    assert (done.returncode, done.stdout, done.stderr) == (0, "accuracy.svg\n", "")
    assert lwmfw("plot", run, "--what", "matrix", "--readout", "ncm", "--out", "x.png").returncode == 0
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    assert lwmfw("plot", run, "--out", "accuracy.svg").returncode == 0, "one of ours may be made anew"
    assert sorted(os.listdir()) == ["accuracy.svg", "x.png"]
    refused = lwmfw("plot", run, "--out", "accuracy.pdf")
    assert refused.returncode == 2
    assert refused.stderr == "--out accuracy.pdf: should end in .svg or .png, which says what is drawn\n"


def test_of_several_runs_one_without_a_finished_step_is_left_out_which_is_told(trained, tmp_path):
    run = halted(tmp_path, {}, after=0)
    for verb in (["compare"], ["report", "--out", tmp_path / "both.html"]):
        done = lwmfw(*verb, trained[0], run)
        assert done.returncode == 0, done.stderr
        assert f"{run}: left out: the run has not finished a step" in done.stderr.splitlines()


def test_a_picture_says_what_it_is_of_and_which_runs_have_no_line_in_it(trained, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(replace(results_of([[0.9], [0.8, 0.9]], who=("cnn",)), recipe="other").to_json()))
    done = lwmfw("plot", trained[0], other, "--readout", "ncm", "--out", tmp_path / "ncm.svg")
    assert done.returncode == 0
    assert done.stderr == "other: has nothing of the kind; --readout names another read-out\n"
    assert (tmp_path / "ncm.svg").read_text().count("Accuracy after each step, by ncm<") == 2, "for eyes and for ears"
