"""A run that dies inside a step goes on there, and comes to the bits of one that was left alone."""

import json

import pytest
import torch
from helpers.inside import Dying, bits, run
from helpers.methods import METHODS, tables
from helpers.plugin_files import penalty_file

import lwmfw
from lwmfw import Images, UserError
from lwmfw.data.loader import EpochShape, Loader
from lwmfw.engine.progress import SaveEvery, parse_save_every
from lwmfw.errors import Interrupted
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_run

FAST = ("lwm",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in METHODS])
def test_a_run_that_dies_anywhere_in_a_step_comes_to_the_same_bits(name, tmp_path, monkeypatch, request):
    dying = Dying(monkeypatch)
    told, tensors = bits(run(tables(name), tmp_path / "whole"))
    assert len({stage for _, stage, _ in dying.stages}) >= 4, "a phase, read-outs, memory, evaluation"
    stages = list(enumerate(dying.stages, 1))
    begun = [number for number, (step, _, updates) in stages if step == 2 and not updates]
    inside = [number for number, (_, _, updates) in stages if updates]
    for after in [inside[len(inside) // 2], begun[-1]] if name in FAST else [*begun, *inside[:: len(inside) // 3]]:
        dying.count, dying.after = 0, after
        place = tmp_path / str(after)
        with pytest.raises(Interrupted):
            run(tables(name), place)
        dying.after = 0
        again, resumed = bits(run(tables(name), place))
        assert [key for key, v in tensors.items() if not v.equal(resumed[key])] == [], dying.stages[after - 1]
        assert resumed.keys() == tensors.keys()
        assert again == told, dying.stages[after - 1]
        assert not list((place / "run" / "checkpoints").glob("inside-*"))


def test_an_epoch_goes_on_behind_any_of_its_batches_with_the_same_images():
    images = Images(torch.arange(64, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 4, 4), torch.zeros(64).long())
    loader = Loader(torch.zeros(1), torch.ones(1), padding=1, flip=True, brightness=0.2)
    shape = EpochShape(64, 0, 16)

    def shown(done):
        return [b.images for b in loader.training_batches(images, shape, torch.Generator().manual_seed(1), done)]

    whole = shown(0)
    for done in range(shape.batches + 1):
        assert all(torch.equal(one, other) for one, other in zip(shown(done), whole[done:], strict=True))


def left_inside(recipe, folder, monkeypatch, after=2):
    """A run that has died after its place was kept for the nth time."""
    dying = Dying(monkeypatch)
    dying.after = after
    with pytest.raises(Interrupted):
        run(recipe, folder)
    dying.after = 0
    return folder / "run"


def test_a_step_that_a_mended_plug_in_file_goes_on_with_is_learned_by_it_alone(tmp_path, monkeypatch):
    penalty_file(
        tmp_path, "@hookimpl\ndef compute_penalty(self, new):\n    return {'probe': new.logits.square().mean()}"
    )
    recipe = {"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}
    left = left_inside(recipe, tmp_path, monkeypatch, after=8)
    assert inside_of(left) == 2
    (tmp_path / "mended").mkdir()
    penalty_file(
        tmp_path / "mended", "@hookimpl\ndef compute_penalty(self, new):\n    return {'probe': new.logits.mean() * 0}"
    )
    lwmfw.resume(left, plugins=tmp_path / "mended" / "probe.py", device="cpu")
    rows = [json.loads(line) for line in (left / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["terms"]["probe"] == 0
    assert json.loads((left / "results.json").read_text())["mended"][0]["steps"] == 1


def test_a_place_in_a_training_that_another_run_has_done_is_of_no_use(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    other = tiny_run({"name": "other"}, tmp_path / "other").path
    left = left_inside({}, tmp_path, monkeypatch, after=1)
    assert inside_of(left) == 1
    results = lwmfw.run(tmp_path / "tiny.toml", out=left, from_run=other, device="cpu")
    assert results.complete
    assert [step.epochs for step in results.steps] == [1, 1]


def inside_of(left):
    return checkpoint.left_inside(left / "checkpoints")


@pytest.mark.parametrize("text", ["", "10", "ten min", "0.5 s", "0 updates", "2.5 updates", "1 d", 600, None])
def test_what_says_no_time_is_refused(text):
    with pytest.raises(UserError, match=r"^--save-every .*: should be a time of a second or more, or updates; write"):
        parse_save_every(text)


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("90 s", SaveEvery(90)),
        ("10min", SaveEvery(600)),
        ("1.5 h", SaveEvery(5400)),
        ("1 update", SaveEvery(updates=1)),
    ],
)
def test_how_often_a_step_is_kept_is_a_time_or_updates(text, every):
    assert parse_save_every(text) == every


def test_the_time_of_a_step_is_told_by_its_parts(tmp_path, monkeypatch):
    parts = ["before training", "main", "after training", "memory", "evaluation"]
    for folder in ("whole", "left"):
        (tmp_path / folder).mkdir()
    whole = tiny_run({}, tmp_path / "whole").results.steps
    assert [list(step.part_seconds) for step in whole] == [parts, parts]
    left = left_inside({}, tmp_path / "left", monkeypatch, after=8)
    for step in [*whole, *lwmfw.resume(left, device="cpu").steps]:
        assert list(step.part_seconds) == parts
        assert all(seconds >= 0 for seconds in step.part_seconds.values())
        *earlier, evaluation = (step.part_seconds[part] for part in parts)
        assert sum(earlier) - 0.01 <= step.train_seconds <= sum(earlier) + evaluation + 0.01, "rounded, all of them"
