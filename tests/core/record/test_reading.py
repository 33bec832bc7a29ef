"""A run directory is read in one place: recipe, results, models, exemplars, class names, preprocessing."""

import ast
import shutil

import pytest
import torch
from helpers import ROOT
from helpers.pictures import make_folder

import lwmfw
from lwmfw import UserError
from lwmfw.data.decoding import decode_images
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import preprocessing_of
from lwmfw.errors import CheckpointRefused
from lwmfw.record.reading import RecordedRun
from lwmfw.testing import tiny_run

MEMORY = {"budget": "3 per class", "select": {"use": "herding"}}
SEEN = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "objective": {"use": "cross_entropy", "over": "seen"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of three steps that chose its own JPEG quality."""
    codec = {"use": "jpeg", "choose": [20, 90], "tolerance": 1.0}
    return tiny_run(SEEN | {"memory": MEMORY | {"codec": codec}}, tmp_path_factory.mktemp("done"))


@pytest.fixture
def opened(done):
    return lwmfw.open_run(done.path)


def test_results_recipe_and_class_names_are_those_of_the_run(done, opened):
    assert opened.finished
    assert opened.results == done.results
    assert opened.class_names == done.results.class_names
    expected = done.run.assembly.resolved.tables()
    expected["training"]["threads"] = torch.get_num_threads()
    assert opened.recipe.tables() == expected
    assert opened.settings["training.epochs"] == "1"


def test_the_model_is_that_of_the_last_step_in_evaluation_mode(done, opened):
    assert not opened.model.training
    for name, value in done.run.model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], value)


def test_the_model_of_the_first_step_is_kept_too(opened):
    model = opened.model_at(1)
    assert model.classes == 2
    assert not torch.equal(model.classifier.weight, opened.model.classifier.weight[:2])


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(opened):
    with pytest.raises(UserError, match="holds no checkpoint of step 2; there are those of 1, 3"):
        opened.model_at(2)


def test_exemplars_come_out_as_the_run_has_them(done, opened):
    ours, theirs = opened.exemplars(), done.run.memory.images()
    assert torch.equal(ours.pixels, theirs.pixels)
    assert torch.equal(ours.labels, theirs.labels)
    assert len(opened.exemplars(1)) == 6


def test_exemplars_of_a_run_without_memory_are_refused(tmp_path):
    run = tiny_run({}, tmp_path)
    with pytest.raises(UserError, match=r"keeps no exemplars; name a run with \[memory\]"):
        lwmfw.open_run(run.path).exemplars()


def test_preprocessing_is_what_the_model_was_trained_with(done, opened):
    shape, data = opened.preprocessing, done.run.data
    assert opened.preprocessing is shape
    assert (shape.channels, shape.size, shape.resize) == (3, data.train.size, 0)
    assert (shape.mean, shape.std) == (list(data.mean), list(data.std))


def test_exemplars_of_the_first_step_need_no_other_checkpoint(done, tmp_path):
    shutil.copytree(done.path, tmp_path / "copy")
    (tmp_path / "copy" / "checkpoints" / "step-0003" / "manifest.json").write_text("{}")
    assert len(OpenedRun(tmp_path / "copy").exemplars(1)) == 6


def test_photographs_among_the_exemplars_can_be_shown(tmp_path):
    make_folder(tmp_path / "pictures", "abcd")
    data = {"use": "folder", "root": str(tmp_path / "pictures"), "size": 16}
    recipe = {"data": data, "objective": SEEN["objective"], "memory": MEMORY}
    run = tiny_run(recipe, tmp_path)
    opened = lwmfw.open_run(run.path)
    assert (opened.preprocessing.size, opened.preprocessing.resize) == (16, run.run.data.train.resize)
    exemplars = opened.exemplars()
    assert torch.equal(decode_images(exemplars).pixels, decode_images(run.run.memory.images()).pixels)


def test_a_prepared_run_stands_where_the_run_ended_and_writes_nothing(done, opened):
    before = sorted(done.path.rglob("*"))
    run = opened.prepared()
    assert run.remaining_steps == []
    assert torch.equal(run.memory.images().pixels, done.run.memory.images().pixels)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), done.run.model.parameters(), strict=True))
    assert sorted(done.path.rglob("*")) == before


def test_what_is_no_run_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match=r"no results\.json; no run directory"):
        lwmfw.open_run(tmp_path)
    with pytest.raises(UserError, match=r"no run directory; name one that holds a resolved\.toml"):
        _ = RecordedRun(tmp_path / "nothing").recipe


def test_a_run_whose_checkpoints_are_gone_or_of_another_version_is_refused(done, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done.path, copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="holds no checkpoint; name a run directory that still has its checkpoints"):
        lwmfw.open_run(copy)
    kept = RecordedRun(done.path).checkpoint()
    kept.facts.pop("preprocessing")
    with pytest.raises(CheckpointRefused, match="says nothing of preprocessing"):
        preprocessing_of(kept)


def test_nothing_else_reads_results_or_a_resolved_recipe():
    """But the writing side, which looks at what it is about to go on with."""
    readers = set()
    for path in [*(ROOT / "lwmfw").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "docs" / "figure.py"]:
        words = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        if words & {"resolved.toml", "results.json"}:
            readers.add(path.relative_to(ROOT).as_posix())
    assert readers == {"lwmfw/record/reading.py", "lwmfw/record/directory.py"}


@pytest.mark.parametrize("classifier", ["linear", "cosine", "proxies"])
def test_the_model_of_a_run_of_several_steps_is_opened_whatever_its_classifier(classifier, tmp_path):
    run = tiny_run({"classifier": {"use": classifier}, "objective": {"use": "cross_entropy"}}, tmp_path)
    model, images = lwmfw.open_run(run.path).model, torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, run.run.model.eval()(images).logits)
