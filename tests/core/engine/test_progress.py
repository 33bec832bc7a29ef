"""A run that dies inside a step goes on there, and comes to the bits of one that was left alone."""

import json

import pytest
import torch
from helpers.methods import METHODS, tables

from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import SaveEvery
from lwmfw.errors import Interrupted
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe

FAST = ("lwm", "podnet", "si")


def run(recipe, folder, updates=3):
    """A run, gone on with, that keeps its place every so many updates and at the beginning of every stage."""
    folder.mkdir(exist_ok=True)
    prepared = prepared_run(assemble(load_recipe(tiny_recipe(recipe, folder))), "cpu", None)
    prepared.save_every = SaveEvery(updates=updates)
    return record(prepared, folder / "run", "auto")


def bits(done):
    """Everything that has to be the same again."""
    steps = done.results.to_json()["steps"]
    for step in steps:
        step["train_seconds"] = 0.0
    path = done.directory.path
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"images_per_s": 0} for row in rows]
    kept = checkpoint.load(path / "checkpoints")
    values = {f"{name}/{key}": v for name, state in kept.components.items() for key, v in state.items()} | kept.model
    plain = {name: v for name, v in values.items() if not isinstance(v, torch.Tensor)}
    tensors = {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}
    return json.dumps([steps, rows, plain], sort_keys=True), tensors


class Dying:
    """Has a run die right after its place has been kept for the nth time; counts without dying where n is 0."""

    def __init__(self, monkeypatch):
        self.count, self.after, self.stages = 0, 0, []
        save = checkpoint.save_inside

        def counted(folder, kept, step, serial):
            save(folder, kept, step, serial)
            self.count += 1
            self.stages.append((step, kept.facts["progress"]["stage"], kept.facts["progress"]["updates"]))
            if self.count == self.after:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save_inside", counted)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in METHODS])
def test_a_run_that_dies_anywhere_in_a_step_comes_to_the_same_bits(name, tmp_path, monkeypatch, request):
    dying = Dying(monkeypatch)
    told, tensors = bits(run(tables(name), tmp_path / "whole"))
    assert len({stage for _, stage, _ in dying.stages}) >= 4, "a phase, read-outs, memory, evaluation"
    stages = list(enumerate(dying.stages, 1))
    begun = [number for number, (step, _, updates) in stages if step == 2 and not updates]
    inside = [number for number, (_, _, updates) in stages if updates]
    for after in [inside[len(inside) // 2], begun[-1]] if name in FAST else [*begun, *inside[::4]]:
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
