"""Checkpoints: what was written comes back, and whatever else lies there is refused."""

import hashlib
import io
import json
import pickle
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from lwmfw.errors import CheckpointRefused, RunFailed, UserError
from lwmfw.model.growing import build_model
from lwmfw.record import checkpoint
from lwmfw.record.results import Results, StepResult
from lwmfw_plugins.backbones._resnet import ResNet
from lwmfw_plugins.classifiers._heads import LinearHead

TENSORS, STATE, MANIFEST = FILES = ("tensors.safetensors", "state.json", "manifest.json")
FACTS = {"threads": 1, "arithmetic": "fp32 on a CPU", "channels": 3}


def small_model(classes=2, width=2, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(ResNet(3, 1, width), LinearHead(4 * width), torch.device("cpu"), bf16=False)
        model.grow(classes)
        for buffer in model.buffers():
            buffer.add_(torch.randn_like(buffer.float()).abs().to(buffer.dtype))
    return model


def results_of(steps):
    made = [
        StepResult(n, [n], n, {"cnn": 0.5}, {"cnn": 1.0}, {"cnn": [0.5] * n}, {"cnn": [[1] * n] * n}, 9, 36, 0, 0, 0.1)
        for n in range(1, steps + 1)
    ]
    return Results("tiny", 1, list(range(steps)), ["a", "b", "c"][:steps], {"L_D": "lwmfw 1"}, False, made)


class Keeper:
    """A component that keeps what it is told to."""

    def __init__(self, state):
        self.kept = state

    def state(self):
        return self.kept

    def restore(self, state):
        self.kept = state


def save(folder, steps=1, model=None, components=None):
    kept = checkpoint.take(model or small_model(), components or {}, results_of(steps), FACTS)
    checkpoint.save(folder, kept)
    return folder / f"step-{steps:04d}"


def fit_manifest(path):
    """Make the manifest say what the files are, as someone would who wants them read."""
    digests = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in (TENSORS, STATE)}
    digests["folder"] = path.name
    (path / MANIFEST).write_text(json.dumps(digests))


def refusal(folder):
    with pytest.raises(CheckpointRefused) as error:
        checkpoint.load(folder)
    return str(error.value)


# what was written comes back


def test_model_results_and_facts_come_back(tmp_path):
    model, other = small_model(seed=1), small_model(seed=2)
    path = save(tmp_path, 2, model)
    kept = checkpoint.load(tmp_path)
    assert (kept.path, kept.results, kept.facts) == (path, results_of(2), FACTS)
    checkpoint.restore(kept, other, {})
    assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert all(p.requires_grad for p in other.parameters())
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)


def test_the_state_of_components_comes_back(tmp_path):
    weights = torch.randn(3, 4)
    tensors = {
        "weights": weights.requires_grad_(),
        "transposed": weights.detach().T,
        "view/of it": weights.detach()[1:, ::2],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "counts": torch.arange(3),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(2).bfloat16(),
        "nothing": torch.empty(0, 7),
    }
    plain = {"step": 3, "rate": 0.1, "name": "ä", "seen": [1, [2, None]], "by class": {"0": 1}, "on": True, "off": None}
    components = {"ewc": Keeper(tensors | plain), "mas.2": Keeper({})}
    save(tmp_path, components=components)
    restored = {"ewc": Keeper(None), "mas.2": Keeper(None)}
    checkpoint.restore(checkpoint.load(tmp_path), small_model(), restored)
    kept = restored["ewc"].kept
    assert set(kept) == set(tensors | plain)
    assert {key: kept[key] for key in plain} == plain
    for key, value in tensors.items():
        assert kept[key].dtype == value.dtype
        assert_close(kept[key], value.detach(), rtol=0, atol=0)
    assert restored["mas.2"].kept == {}


def test_the_state_of_a_component_comes_back_in_its_order(tmp_path):
    # a penalty sums over its state: in another order it would sum to other bits after a resume
    state = {f"layer {n}": torch.ones(1) if n % 3 else n for n in (5, 3, 8, 1, 9, 2, 7, 4, 6, 0)}
    save(tmp_path, components={"ewc": Keeper(state)})
    assert list(checkpoint.load(tmp_path).components["ewc"]) == list(state)


def test_tensors_that_share_memory_are_kept_apart(tmp_path):
    shared = torch.randn(3)
    save(tmp_path, components={"one": Keeper({"a": shared, "b": shared[:2]}), "two": Keeper({"a": shared})})
    kept = checkpoint.load(tmp_path).components
    assert_close(kept["one"], {"a": shared, "b": shared[:2]})
    assert_close(kept["two"], {"a": shared})


def test_a_plug_ins_own_parts_come_back(tmp_path):
    model, other = small_model(), small_model()
    for m in (model, other):
        m.extras["memory"] = nn.Linear(2, 1)
    save(tmp_path, model=model)
    checkpoint.restore(checkpoint.load(tmp_path), other, {})
    assert_close(other.extras.state_dict(), model.extras.state_dict(), rtol=0, atol=0)


def test_parts_that_nothing_made_are_refused_with_a_hint(tmp_path):
    model = small_model()
    model.extras["memory"] = nn.Linear(2, 1)
    path = save(tmp_path, model=model)
    words = r": holds extras\.memory\.(weight|bias), which nothing made; make a plug-in's own parts in before_run"
    with pytest.raises(CheckpointRefused, match=re.escape(str(path)) + words):
        checkpoint.restore(checkpoint.load(tmp_path), small_model(), {})


def test_parts_that_the_checkpoint_lacks_are_refused(tmp_path):
    path = save(tmp_path)
    model = small_model()
    model.extras["memory"] = nn.Linear(2, 1)
    with pytest.raises(CheckpointRefused, match=re.escape(f"{path}: lacks extras.memory.weight")):
        checkpoint.restore(checkpoint.load(tmp_path), model, {})


@pytest.mark.parametrize("other", [{"width": 3}, {"classes": 4}], ids=["width", "classes"])
def test_parts_of_another_shape_are_refused(tmp_path, other):
    path = save(tmp_path)
    with pytest.raises(CheckpointRefused, match=re.escape(str(path))):
        checkpoint.restore(checkpoint.load(tmp_path), small_model(**other), {})


@pytest.mark.parametrize(
    "error", [KeyError("omega"), RunFailed("ewc.py:3: Ewc.restore raised KeyError"), SystemExit(0)]
)
def test_a_state_that_a_component_does_not_take_back_is_refused(error, tmp_path):
    path = save(tmp_path, components={"ewc": Keeper({})})
    component = Keeper({})
    component.restore = Mock(side_effect=error)
    words = rf"^{path}: does not hold a state of ewc \(.*\); restore it or start the run anew$"
    with pytest.raises(CheckpointRefused, match=words):
        checkpoint.restore(checkpoint.load(tmp_path), small_model(), {"ewc": component})


@pytest.mark.parametrize("error", [MemoryError(), UserError("a file is gone"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_checkpoint_goes_through(error, tmp_path):
    save(tmp_path, components={"ewc": Keeper({})})
    component = Keeper({})
    component.restore = Mock(side_effect=error)
    with pytest.raises(type(error)):
        checkpoint.restore(checkpoint.load(tmp_path), small_model(), {"ewc": component})


# which checkpoint is read


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "checkpoints") is None
    (tmp_path / "empty").mkdir()
    assert checkpoint.load(tmp_path / "empty") is None


def test_the_first_and_the_newest_checkpoint_are_kept(tmp_path):
    for steps in (1, 2, 3):
        save(tmp_path, steps)
        assert {path.name for path in tmp_path.iterdir()} == {"step-0001", f"step-{steps:04d}"}
        assert len(checkpoint.load(tmp_path).results.steps) == steps
        assert len(checkpoint.load(tmp_path, step=1).results.steps) == 1
    assert checkpoint.load(tmp_path, step=2) is None


def test_the_newest_of_two_is_read(tmp_path):
    shutil.copytree(save(tmp_path / "a", 2), tmp_path / "b" / "step-0002")
    shutil.copytree(save(tmp_path / "c", 10), tmp_path / "b" / "step-0010")
    assert len(checkpoint.load(tmp_path / "b").results.steps) == 10


def test_numbers_and_not_names_say_what_is_newest(tmp_path):
    for name in ("step-9999", "step-10000", "step-0001", "inside-10001-999999", "inside-10001-1000000"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [1, 9999, 10000]
    assert checkpoint.inside(tmp_path, 10001) == tmp_path / "inside-10001-1000000"


def test_an_unfinished_folder_is_ignored_and_then_replaced(tmp_path):
    whole = save(tmp_path, 2)
    unfinished = tmp_path / "step-0003.tmp"
    unfinished.mkdir()
    (unfinished / TENSORS).write_bytes((whole / TENSORS).read_bytes()[:100])
    assert checkpoint.load(tmp_path).path == whole
    save(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0003"]
    (tmp_path / "step-0003").rename(tmp_path / "step-0003.tmp")
    assert checkpoint.load(tmp_path) is None


class Killed(BaseException):
    """The process ends here."""


# a save clears its place, writes and renames three files, clears the final place, renames, and removes the older step
@pytest.mark.parametrize("survived", range(10))
def test_a_run_killed_while_it_saves_keeps_a_whole_checkpoint(tmp_path, monkeypatch, survived):
    save(tmp_path, 2)
    left = iter(range(survived))

    def mortal(function):
        def call(*args):
            if next(left, None) is None:
                raise Killed
            return function(*args)

        return call

    for owner, name in ((checkpoint, "write_bytes"), (checkpoint, "remove"), (Path, "replace")):
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    with pytest.raises(Killed):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert len(checkpoint.load(tmp_path).results.steps) == (2 if survived < 9 else 3)
    save(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0003"]
    assert len(checkpoint.load(tmp_path).results.steps) == 3


# what is refused


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(tmp_path, name):
    path = save(tmp_path, components={"ewc": Keeper({"fisher": torch.randn(5), "step": 1})})
    whole = (path / name).read_bytes()
    recorded = json.loads((path / MANIFEST).read_text())
    positions = torch.randperm(8 * len(whole), generator=torch.Generator().manual_seed(0))[:150]
    for position in positions.tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        (path / name).write_bytes(damaged)
        message = refusal(tmp_path)
        if name == MANIFEST:
            assert any(str(path / file) in message for file in FILES), message
        else:
            assert str(path / name) in message
            assert hashlib.sha256(damaged).hexdigest() in message
            assert recorded[name] in message
    (path / name).write_bytes(whole)
    assert checkpoint.load(tmp_path) is not None


CUTS = {"empty": lambda n: 0, "halved": lambda n: n // 2, "short of a byte": lambda n: n - 1}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(tmp_path, name, cut):
    path = save(tmp_path)
    whole = (path / name).read_bytes()
    part = whole[: CUTS[cut](len(whole))]
    (path / name).write_bytes(part)
    message = refusal(tmp_path)
    assert str(path / name) in message
    if name != MANIFEST:
        assert hashlib.sha256(part).hexdigest() in message
        assert hashlib.sha256(whole).hexdigest() in message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(tmp_path, name):
    path = save(tmp_path)
    (path / name).unlink()
    assert str(path / name) in refusal(tmp_path)


def test_a_manifest_of_another_step_is_refused(tmp_path):
    stale = save(tmp_path, 1, small_model(seed=1)) / MANIFEST
    content = stale.read_bytes()
    path = save(tmp_path, 2, small_model(seed=2))
    actual = hashlib.sha256((path / TENSORS).read_bytes()).hexdigest()
    (path / MANIFEST).write_bytes(content)
    message = refusal(tmp_path)
    assert str(path / TENSORS) in message
    assert actual in message
    assert json.loads(content)[TENSORS] in message


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "{}",
        "3",
        '{"state.json": 1}',
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("\0", id="zero"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    path = save(tmp_path)
    (path / MANIFEST).write_text(content)
    assert str(path / MANIFEST) in refusal(tmp_path)


OTHER_STATES = {
    "a list": lambda state: "[]",
    "nothing": lambda state: "null",
    "empty": lambda state: "{}",
    "deep": lambda state: "[" * 100_000,
    "no results": lambda state: json.dumps({key: value for key, value in state.items() if key != "results"}),
    "other results": lambda state: json.dumps(state | {"results": {"steps": [1]}}),
    "no component": lambda state: json.dumps(state | {"components": {}}),
    "no components": lambda state: json.dumps(state | {"components": None}),
    "other components": lambda state: json.dumps(state | {"components": {"ewc": 3}}),
}


@pytest.mark.parametrize("other", OTHER_STATES)
def test_a_state_of_another_format_is_refused_even_if_the_manifest_fits(tmp_path, other):
    path = save(tmp_path, components={"ewc": Keeper({"fisher": torch.randn(5)})})
    (path / STATE).write_text(OTHER_STATES[other](json.loads((path / STATE).read_text())))
    fit_manifest(path)
    assert str(path) in refusal(tmp_path)


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def zipped(bomb):
    stream = io.BytesIO()
    torch.save({"model.classifier.weight": bomb}, stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("dump", [pickle.dumps, zipped], ids=["pickle", "torch.save"])
def test_a_pickle_is_refused_and_not_executed_even_if_the_manifest_fits(tmp_path, dump, name):
    path = save(tmp_path)
    (path / name).write_bytes(dump(Bomb(tmp_path / "executed")))
    fit_manifest(path)
    assert str(path) in refusal(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_tensors_are_read_from_the_bytes_that_were_hashed(tmp_path, monkeypatch):
    path = save(tmp_path, model=small_model(seed=1))
    other = safetensors.torch.save({"model.x": torch.zeros(1)})
    read = Path.read_bytes

    def swapping(file):
        content = read(file)
        if file.name == TENSORS:
            file.write_bytes(other)  # somebody exchanges the file behind the reader's back
        return content

    monkeypatch.setattr(Path, "read_bytes", swapping)
    kept = checkpoint.load(tmp_path)
    assert (path / TENSORS).stat().st_size == len(other)
    assert_close(kept.model, dict(small_model(seed=1).state_dict()), rtol=0, atol=0)
