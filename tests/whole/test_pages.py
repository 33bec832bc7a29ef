"""Pages in a browser: nothing to scroll sideways, dark where the reader's system is, and not a word on its console.

Skipped where there is no chromium.
"""

import html
import json
import re
import shutil
import subprocess

import pytest
from helpers import ROOT
from helpers.results import THREE, results_of

from lwmfw import report
from lwmfw.testing import tiny_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium"),
]
WIDTHS = (400, 800, 1400)
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
MEASURE = """
addEventListener("load", () => {
  const told = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument
    page.querySelectorAll("details").forEach(each => each.open = true)
    const boxes = [...page.querySelectorAll("figure, .scroll, pre, h1, p")].map(each => each.getBoundingClientRect())
    return {
      width: frame.contentWindow.innerWidth,
      scrolled: page.documentElement.scrollWidth,
      outside: boxes.filter(box => box.right > frame.contentWindow.innerWidth).length,
      paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      letters: Math.min(...[...page.querySelectorAll("p, td, figcaption")].map(
        each => parseFloat(getComputedStyle(each).fontSize))),
    }
  })
  document.body.dataset.told = JSON.stringify(told)
})
"""


def chromium(folder, page, scheme, *arguments):
    """What chromium prints of a page, and what it logs."""
    dark = {"light": 1, "dark": 0}[scheme]
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"),
            *("--enable-logging=stderr", "--v=0", f"--blink-settings=preferredColorScheme={dark}"),
            *(*arguments, "--dump-dom", "--virtual-time-budget=3000", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports: of a run with exemplars, of a hundred classes, of many recipes, and of names that fit nowhere."""
    folder = tmp_path_factory.mktemp("pages")
    memory = {"budget": "4 per class", "select": {"use": "random"}, "codec": {"use": "jpeg"}}
    run = tiny_run({"memory": memory, "readouts": [{"use": "cnn"}, {"use": "ncm"}]}, folder).path
    long = results_of(THREE, recipe="r" * 100, who=("cnn", "q" * 100))
    long.class_names = ["w" * 255, "é" * 127, "<b>" * 60, "a b " * 60, "\u202e" * 80, "x"]
    (folder / "long.json").write_text(long.to_text())
    measured = ROOT / "docs" / "measured"
    runs = {
        "memory": [run],
        "hundred": [measured / "cifar100-b50" / "podnet-cbam-mem-1993.json"],
        "recipes": sorted(measured.glob("fashion-mnist-systems/*.json")),
        "long": [folder / "long.json"],
    }
    return {name: report(*each, out=folder / f"{name}.html") for name, each in runs.items()}


@pytest.mark.parametrize("scheme", PAPER)
@pytest.mark.parametrize("name", ["memory", "hundred", "recipes", "long"])
def test_a_page_fits_every_width_in_light_and_dark(name, scheme, pages, tmp_path):
    srcdoc = html.escape(pages[name].read_text())
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{srcdoc}"></iframe>' for width in WIDTHS
    )
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!doctype html><body>{frames}<script>{MEASURE}</script></body>")
    dumped, _ = chromium(tmp_path, wrapper, scheme, "--window-size=1500,3000")
    told = json.loads(html.unescape(re.search('data-told="([^"]*)"', dumped)[1]))
    assert [each["width"] for each in told] == list(WIDTHS)
    for each in told:
        assert each["scrolled"] <= each["width"], each
        assert each["outside"] == 0, each
        assert each["paper"] == PAPER[scheme]
        assert each["letters"] >= 13


@pytest.mark.parametrize("name", ["memory", "long"])
def test_a_page_is_silent_on_the_console(name, pages, tmp_path):
    dumped, logged = chromium(tmp_path, pages[name], "light")
    assert "</html>" in dumped
    assert "CONSOLE" not in logged
