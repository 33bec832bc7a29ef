"""`lwmfw export`: a file scores as its run does, or is not there."""

import json
import sys

import pytest
import torch
from helpers import ROOT
from helpers.command import lwmfw

from lwmfw.engine.opened import OpenedRun
from lwmfw.model.growing import evaluating, full_precision
from lwmfw.testing import tiny_run
from lwmfw.using.export import TOLERANCE, Deciding, compared

READOUTS = [
    *({"use": name} for name in ("cnn", "nme", "ncm", "lda", "ridge", "fecam")),
    {"use": "ridge", "as": "lifted", "lift": 50},
    {"use": "fecam", "as": "fecam-class", "covariance": "class"},
]
NAMES = [each.get("as", each["use"]) for each in READOUTS]
RECIPE = {
    "readouts": READOUTS,
    "objective": {"use": "cross_entropy", "over": "seen"},
    "memory": {"budget": "3 per class", "select": {"use": "herding"}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run of two steps with every read-out."""
    return tiny_run(RECIPE, tmp_path_factory.mktemp("finished")).path


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """The same on images of one channel."""
    return tiny_run(RECIPE | {"data": {"channels": 1}}, tmp_path_factory.mktemp("grey")).path


SLOW = pytest.mark.slow
EACH = pytest.mark.parametrize(
    ("which", "readout"),
    [
        *(pytest.param("run", n, marks=[] if n == "ridge" else SLOW) for n in NAMES),
        pytest.param("grey", "ridge", marks=SLOW),
    ],
)


def images_of(run, count=100):
    shape = OpenedRun(run).preprocessing
    size = (count, shape.channels, shape.size, shape.size)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def scores_of(run, readout, images):
    """What the run itself says."""
    left = OpenedRun(run).as_left()
    with evaluating(left.model), full_precision(left.model):
        features = left.model(left.loader.normalise(images)).features
        return left.assembly.of_kind("readout")[readout].method("scores")(features)


def exported(run, form, *arguments):
    done = lwmfw("export", run, "--format", form, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    file = run / f"export.{form}"
    assert done.stdout.startswith(f"{file}: {file.stat().st_size} bytes, scores differ from the run's by ")
    assert not list(run.glob("*.unchecked*"))
    return file


def assert_same(found, expected):
    """Scores are equal within the tolerance, and decide alike."""
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= TOLERANCE * largest
    first, second = expected.topk(2, 1).values.T
    clear = first - second > TOLERANCE * largest
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])


@EACH
def test_a_file_of_torch_scores_as_the_run_does(which, readout, request):
    run = request.getfixturevalue(which)
    file, images, extra = exported(run, "pt2", "--readout", readout), images_of(run), {"lwmfw.json": ""}
    assert str(ROOT).encode() not in file.read_bytes()
    network = torch.export.load(file, extra_files=extra).module()
    assert_same(network(images), scores_of(run, readout, images))
    assert network(images[:1]).shape == (1, 4)
    assert json.loads(extra["lwmfw.json"])["readout"] == readout


def onnx_session(file):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@EACH
def test_a_file_for_onnx_runtime_scores_as_the_run_does(which, readout, request):
    run = request.getfixturevalue(which)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file, images = exported(run, "onnx", "--readout", readout), images_of(run)
    session = onnx_session(file)
    (found,), (one,) = (session.run(None, {"images": part.numpy()}) for part in (images, images[:1]))
    assert_same(torch.from_numpy(found), scores_of(run, readout, images))
    assert one.shape == (1, 4)


@pytest.mark.slow
def test_a_file_for_onnx_runtime_says_what_a_program_has_to_know(grey):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file, opened = exported(grey, "onnx"), OpenedRun(grey)
    assert str(ROOT).encode() not in file.read_bytes()
    session = onnx_session(file)
    (images,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", ["N", 1, 8, 8], "tensor(uint8)")
    assert (scores.name, scores.shape, scores.type) == ("scores", ["N", 4], "tensor(float)")
    said = json.loads(session.get_modelmeta().custom_metadata_map["lwmfw"])
    assert (said["recipe"], said["readout"]) == ("tiny", "cnn")
    assert said["probability_is"] == "softmax of the classifier's logits, not calibrated"
    assert said["classes"] == opened.class_names
    crop = "grey; the shorter side resized to 8, then 8 x 8 from the centre"
    assert said["preprocessing"] == {"channels": 1, "size": 8, "resize": 8, "crop": crop}


@pytest.mark.slow
def test_a_file_that_decides_otherwise_does_not_stay(tmp_path, monkeypatch):
    run, right = tiny_run({}, tmp_path).path, Deciding.forward
    monkeypatch.setattr(Deciding, "forward", lambda self, images: right(self, images) * 1.01)
    (run / "export.pt2").write_text("of an earlier day")
    done = lwmfw("export", run, "--format", "pt2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{run}: cnn cannot be written as pt2: the file scores 100 of 100 random images oth")
    assert done.stderr.endswith(", by up to 0.01 of the largest score; choose another --format or --readout\n")
    assert (run / "export.pt2").read_text() == "of an earlier day"
    assert not list(run.glob("*.unchecked*"))


BRANCHES = """
from lwmfw import Readout, hookimpl

class Branches:
    def __init__(self, options):
        pass

    @hookimpl
    def before_run(self, run):
        self.run = run

    def scores(self, features):
        logits = self.run.model.classifier(features)
        return logits if features.sum() > 0 else -logits

@hookimpl
def register_components():
    yield Readout("branches", Branches)
"""


def test_a_read_out_that_cannot_be_traced_is_named(tmp_path):
    (tmp_path / "branches.py").write_text(BRANCHES)
    run = tiny_run({"plugins": ["branches.py"], "readouts": [{"use": "branches"}]}, tmp_path).path
    done = lwmfw("export", run, "--format", "pt2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{run}: branches cannot be written as pt2 (GuardOnDataDependent")
    assert done.stderr.endswith("; choose another --format or --readout\n")
    assert not list(run.glob("export*"))


def test_what_cannot_be_written_is_refused_in_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "there.pt2").write_text("somebody's")
    for arguments, said in {
        ("--out", "there.pt2"): "there.pt2: exists; choose another --out",
        ("--out", "no/x.pt2"): "no/x.pt2: its folder does not exist; make it, or choose another --out",
        ("--readout", "rigde"): f"--readout: {run} has no read-out 'rigde'; did you mean 'ridge'?",
    }.items():
        done = lwmfw("export", run, "--format", "pt2", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}\n")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = lwmfw("export", run, "--format", "onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == '--format onnx: onnx is not installed; pip install "lwmfw[onnx]"\n'
    assert lwmfw("export", "nowhere", "--format", "pt2").returncode == 2


def test_a_file_goes_where_it_is_wanted(run, tmp_path):
    done = lwmfw("export", run, "--format", "pt2", "--out", "model")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def compared_one(found, expected):
    return compared(torch.tensor([found]), torch.tensor([expected]))


def test_scores_are_held_against_the_largest():
    assert compared_one([2.0, -1.0], [2.0, -1.0]) == (0.0, 0)
    difference, wrong = compared_one([2.0, -1.0001], [2.0, -1.0])
    assert difference == pytest.approx(0.5e-4, rel=1e-2)
    assert not wrong
    assert compared_one([2.0, -1.0003], [2.0, -1.0])[1] == 1
    assert compared_one([2.0, torch.nan], [2.0, -1.0])[1] == 1


def test_decisions_agree_where_classes_are_apart():
    assert compared_one([1.0, 1.00005], [1.00005, 1.0])[1] == 0
    assert compared_one([1.00006, 1.00013], [1.00015, 1.0])[1] == 1


def test_a_class_of_which_nothing_is_known_stays_unknown():
    nothing = -torch.inf
    assert compared_one([1.0, nothing], [1.0, nothing]) == (0.0, 0)
    assert compared_one([1.0, 0.5], [1.0, nothing])[1] == 1
    assert compared_one([1.0, nothing], [1.0, 0.5])[1] == 1
