"""`lwmfw explain`: one run and several, files and test images, what is not kept, and what cannot be explained."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.command import lwmfw
from helpers.pictures import make_folder, noise, save
from helpers.runs import THREE_STEPS
from PIL import Image

from lwmfw import open_run, run
from lwmfw.errors import UserError
from lwmfw.showing.attention_figure import drawn, figure_of
from lwmfw.showing.explain import explain
from lwmfw.showing.glances import Explanation, Glance, Row
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.using.predict import Said

OTHERS = {"finetune": [], "lwf-mc": [{"use": "L_D"}], "lwm": [{"use": "L_D"}, {"use": "L_AD"}]}
DRIFT = {"use": "attention-drift", "images": 1, "picture": False}
MADE = "explain.png"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of three steps that have kept all of them, and two pictures."""
    place = tmp_path_factory.mktemp("runs")
    for name, penalties in OTHERS.items():
        tables = {"name": name, "penalties": penalties, "readouts": [{"use": "cnn"}, {"use": "ncm"}]}
        recipe = tiny_recipe(THREE_STEPS | tables | {"observers": [DRIFT]}, place)
        run(recipe, out=place / name, from_run=place / "finetune" if penalties else None, keep_steps=True)
    for number in range(2):
        save(noise(40, 30, number), place / "pictures" / f"{number}.png")
    return place


def answered(*arguments):
    done = lwmfw("explain", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments, code=2):
    done = lwmfw("explain", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(MADE).exists()
    return done.stderr


def test_one_run_is_drawn_at_every_step_and_told_in_a_table(runs):
    done = lwmfw("explain", runs / "lwm", "--test", "0")
    assert (done.returncode, done.stderr) == (0, f"{MADE}: written\n")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["image", "looked", "at", "for", "run", "step", "score", "probability", "l1", "says"]
    assert len(rows) == 3
    with Image.open(MADE) as picture:
        assert picture.text["Software"] == "lwmfw explain"
        assert picture.size[0] > 4 * 150


def test_the_drift_is_that_of_the_observer(runs):
    names = open_run(runs / "lwm").results.class_names
    first, second = answered(runs / "lwm", "--test", "0,8")  # the first of each class of step 1, 8 test images a class
    assert [first["class"], second["class"]] == names[:2]
    assert first["class_is"] == "its own"
    observed = [step.extra["attention-drift"]["l1_by_class"] for step in open_run(runs / "lwm").results.steps]
    for number, each in enumerate((first, second)):
        l1 = [step["l1"] for step in each["runs"][0]["steps"]]
        alive = [None if far is None else by_class[number] for far, by_class in zip(l1, observed, strict=True)]
        assert l1 == pytest.approx(alive, abs=1e-3)


def test_several_runs_stand_side_by_side_with_one_class(runs):
    image = runs / "pictures" / "0.png"
    (found,) = answered(runs / "finetune", image, runs / "lwf-mc", runs / "lwm")
    assert [each["name"] for each in found["runs"]] == list(OTHERS)
    assert [step["step"] for each in found["runs"] for step in each["steps"]] == [1, 2, 3] * 3
    said = [each["steps"][-1]["says"]["class"] for each in found["runs"]]
    assert found["class_is"] == "said"
    assert said.count(found["class"]) == max(map(said.count, said))
    for each in found["runs"]:
        (decided,) = json.loads(lwmfw("predict", each["run"], image, "--json").stdout)
        assert decided["classes"][0]["class"] == each["steps"][-1]["says"]["class"]
        assert decided["classes"][0]["score"] == pytest.approx(each["steps"][-1]["says"]["score"], rel=1e-5)


def test_a_class_is_named_or_that_which_is_said_and_steps_before_it_are_empty(runs):
    late = open_run(runs / "lwm").results.class_names[-1]
    (found,) = answered(runs / "lwm", "--test", "0", "--class", late)
    first, second, third = found["runs"][0]["steps"]
    assert first["attention"] is second["attention"] is first["of_class"] is None
    assert third["of_class"]["class"] == late
    assert third["l1"] == 0
    assert found["class_is"] == "asked for"


def test_the_same_read_out_is_asked_in_every_run(runs):
    (found,) = answered(runs / "finetune", runs / "lwm", "--test", "0", "--readout", "ncm")
    assert {each["readout"] for each in found["runs"]} == {"ncm"}
    assert found["runs"][0]["probability_is"] is None
    maps = torch.tensor([step["attention"] for each in found["runs"] for step in each["steps"]])
    lengths = maps.flatten(1).norm(dim=1)
    assert torch.minimum(lengths, (lengths - 1).abs()).max() < 1e-4


def test_what_is_not_kept_is_told_with_what_keeps_it(tmp_path):
    done = tiny_run(THREE_STEPS, tmp_path)
    told = lwmfw("explain", done.path, "--test", "0")
    assert told.returncode == 0
    line = f"{done.path}: keeps no model of step 2; `lwmfw run --keep-steps` keeps those of all"
    assert told.stderr.splitlines() == [line, f"{MADE}: written"]
    (row,) = answered(done.path, "--test", "0")[0]["runs"]
    assert ([step["step"] for step in row["steps"]], row["steps_not_kept"]) == ([1, 3], [2])


def test_equal_inputs_give_equal_bytes_in_either_form(runs):
    one, two = (explain(runs / "finetune", test=[1]) for _ in range(2))
    for form in ("png", "svg"):
        assert drawn(one, form) == drawn(two, form)
    assert b"<dc:date>" not in drawn(one, "svg")


def test_a_figure_takes_the_place_of_a_figure_and_of_nothing_else(runs):
    for _ in range(2):
        assert lwmfw("explain", runs / "lwm", "--test", "0", "--out", "figure.svg").returncode == 0
    Path("mine.png").write_text("not a figure")
    for out, said in {
        "mine.png": "mine.png: is there, and no earlier one of lwmfw; choose another --out",
        "figure.pdf": "--out figure.pdf: should end in .svg or .png, which says what is drawn",
        "no/figure.png": "no/figure.png: its folder is not there; make it, or choose another --out",
    }.items():
        assert refused(runs / "lwm", "--test", "0", "--out", out) == f"{said}\n"
    assert Path("mine.png").read_text() == "not a figure"
    for verb in ("plot", "explain"):  # by one rule, whoever drew it
        asked = ["--test", "0"] if verb == "explain" else []
        assert lwmfw(verb, runs / "lwm", *asked, "--out", "either.PNG").returncode == 0


def test_a_folder_that_holds_runs_is_none_of_images(runs):
    words = f"{runs}: is no run, and has one in it, {runs / 'finetune'}; name runs themselves, and folders of images"
    assert refused(runs / "lwm", runs) == f"{words} apart from them\n"


def test_an_svg_says_what_it_shows(runs):
    found = explain(runs / "lwm", test=[1])
    text = drawn(found, "svg").decode()
    assert '<svg role="img"' in text
    assert "<title>Where runs look in images</title>" in text
    (words,) = re.findall("<desc>lwmfw: (.*)</desc>", text)
    glance = found[0].rows[0].glances[2]
    begins = (
        f"Attention to {found[0].wanted} in test image 1. lwm, cnn: step 1, {found[0].rows[0].glances[0].says.name} "
    )
    assert words.startswith(begins)
    assert f"step 3, {glance.says.name} {glance.says.probability:.2f}" in words


def test_json_draws_only_where_it_is_told_to(runs):
    answered(runs / "lwm", "--test", "0")
    assert not Path(MADE).exists()
    answered(runs / "lwm", "--test", "0", "--out", "figure.png")
    assert Path("figure.png").exists()


def test_what_cannot_be_explained_is_refused_in_one_line(runs):
    Path("text.png").write_text("no image")
    path, image = runs / "lwm", runs / "pictures" / "0.png"
    for arguments, said in {
        (path, image, "--class", "patern 3"): "--class: no run knows 'patern 3'; did you mean 'pattern 3'?",
        (path, image, "--readout", "nmc"): f"--readout: {path} has no read-out 'nmc'; did you mean 'ncm'?",
        (path, "text.png"): "text.png: cannot be read (no image of a known format); name another file",
        (path, "tex.png"): "tex.png: no such file or folder; did you mean 'text.png'?",
        (path,): "no image is named; name files, or test images of the run's data, as in --test 0",
        (image,): "no run is named; name a run directory, one that holds a resolved.toml",
        (path, image, "--test", "0"): "--test: images are named too; leave one of them out",
        (path, "--test", "48"): "--test: there is no test image 48; they are 0 to 47, in class order",
        (path, "--test", "1,a"): "--test: '1,a' are no positions of test images; write them as in 0,5,17",
    }.items():
        assert refused(*arguments) == f"{said}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_is_not_needed_and_missed_in_words(runs):
    assert "torch finds no CUDA device; use --device cpu" in refused(runs / "lwm", "--test", "0", "--device", "cuda")


ODD = """
import torch
from torch import nn
from lwmfw import Backbone, Features, Options, Readout, hookimpl

class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, 4, 8)

    def forward(self, images):
        return Features(self.layer(images).flatten(1), [], [], None)

class Flat:
    offers = {"features"}
    def __init__(self, options):
        pass
    def build(self, channels):
        return Net(channels)

class Rank:
    "A class by the order of features."
    def __init__(self, options):
        self.classes = 0
    @hookimpl
    def after_training(self, step):
        self.classes = len(step.seen_classes)
    def scores(self, features):
        return torch.nn.functional.one_hot(features.argmax(1) % self.classes, self.classes).float()
    def state(self):
        return {"classes": self.classes}
    def restore(self, state):
        self.classes = state["classes"]

@hookimpl
def register_components():
    yield Backbone("flat", Flat)
    yield Readout("rank", Rank)
"""


def test_what_has_no_map_and_what_has_no_gradient_is_told_by_its_name(tmp_path, bare):
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "odd.py").write_text(ODD)
    flat = tiny_run({"plugins": ["odd.py"], "backbone": {"use": "flat"}}, tmp_path / "flat").path
    words = "its backbone flat offers no pooled map to see attention at; name a run whose backbone offers 'pooled'"
    assert refused(flat, "--test", "0") == f"{flat}: {words}\n"
    ranked = tiny_run({"plugins": ["odd.py"], "readouts": [{"use": "rank"}]}, tmp_path).path
    words = "the scores of the read-out rank have no gradient, so what they hang on is not known; name another with"
    assert refused(ranked, "--test", "0") == f"{ranked}: {words} --readout\n"


def test_a_map_of_one_position_says_nothing(tmp_path):
    path = tiny_run({"data": {"use": "synthetic", "size": 4}}, tmp_path).path
    words = "the pooled map of its backbone has one position for images of 4x4, and nowhere else to look; name a run"
    assert refused(path, "--test", "0") == f"{path}: {words} on larger images\n"


def test_names_of_strangers_are_drawn_and_told_as_letters(tmp_path):
    names = ["$x_1^", "\x1b[31mred", "=cmd|x", "界"]
    make_folder(tmp_path / "data $", names, count=3)
    data = {"use": "folder", "root": str(tmp_path / "data $"), "size": 8, "decode": "once"}
    path = tiny_run({"data": data}, tmp_path).path
    (tmp_path / "run").rename(tmp_path / "a\x1b[2J$run$")
    image = save(noise(20, 20), tmp_path / "$i\x1b[31m_.png")
    for form in ("png", "svg"):
        done = lwmfw("explain", tmp_path / "a\x1b[2J$run$", image, "--out", f"out.{form}")
        assert done.returncode == 0, done.stderr
        assert not re.search("[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)
    assert not path.exists()


def test_from_python_an_explanation_is_a_picture(runs):
    (found,) = explain(runs / "lwm", runs / "pictures" / "1.png")
    with Image.open(io.BytesIO(found._repr_png_())) as picture:
        assert picture.format == "PNG"
    assert found.steps == [1, 2, 3]
    with pytest.raises(UserError, match="no run is named"):
        explain([], test=[0])


def glance(step, attention, l1=None):
    said = Said("a class", 1.0, 0.5)
    return Glance(step, said, said, attention, l1)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_what_cannot_be_seen_is_said_in_the_figure(channels):
    """A dead map is no near one; images of any number of channels are drawn."""
    alive, dead = torch.full((2, 2), 0.5), torch.zeros(2, 2)
    pixels = torch.zeros(channels, 8, 8, dtype=torch.uint8)
    rows = [
        Row(Path("a"), "a", "cnn", "", pixels, [glance(1, alive, 0.0), glance(2, dead)], [3]),
        Row(Path("b"), "b", "cnn", "", pixels, [glance(1, dead), glance(2, alive), glance(3, None)], []),
    ]
    figure = figure_of([Explanation("image", "a class", "its own", rows)])
    said = [text.get_text() for place in (figure, *figure.axes) for text in place.texts]
    assert [said.count(each) for each in ("drift 0.00", "no attention", "no first map", "not kept")] == [1, 2, 1, 1]
    assert said.count("does not know\nthe class yet") == 1


def test_more_than_can_be_drawn_is_refused_in_words():
    row = Row(Path("a"), "a", "cnn", "", torch.zeros(1, 8, 8, dtype=torch.uint8), [glance(1, torch.ones(2, 2))], [])
    with pytest.raises(UserError, match="a figure of 300 rows and 1 steps is too large to be drawn; name fewer images"):
        figure_of([Explanation("image", "a class", "its own", [row])] * 300)
