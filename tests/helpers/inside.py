"""Runs that die inside a step, in the process of the test."""

import json

import torch

from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import SaveEvery
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe


def run(recipe, folder, device="cpu", updates=3):
    """A run, gone on with, that keeps its place every so many updates and at the beginning of every stage."""
    folder.mkdir(exist_ok=True)
    prepared = prepared_run(assemble(load_recipe(tiny_recipe(recipe, folder))), device, None)
    prepared.save_every = SaveEvery(updates=updates)
    return record(prepared, folder / "run", "auto")


def bits(done):
    """Everything that has to be the same again."""
    steps = done.results.to_json()["steps"]
    for step in steps:
        step["train_seconds"], step["part_seconds"] = 0.0, {}
    path = done.directory.path
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"images_per_s": 0} for row in rows]
    kept = checkpoint.load(path / "checkpoints")
    values = {f"{name}/{key}": v for name, state in kept.components.items() for key, v in state.items()} | kept.model
    plain = {name: v for name, v in values.items() if not isinstance(v, torch.Tensor)}
    tensors = {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}
    return json.dumps([steps, rows, plain], sort_keys=True), tensors


def die_at(monkeypatch, *place):
    """Have a run die right after it has kept its place: step, stage and updates of the stage."""
    save = checkpoint.save_inside

    def saved(folder, kept, step, serial):
        save(folder, kept, step, serial)
        if (step, kept.facts["progress"]["stage"], kept.facts["progress"]["updates"]) == place:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_inside", saved)


class Dying:
    """Has a run die right after its place has been kept for the nth time, counting without dying where n is 0; or at a
    place - step, stage and updates of it - of which `at` says so."""

    def __init__(self, monkeypatch):
        self.count, self.after, self.stages, self.at = 0, 0, [], None
        save = checkpoint.save_inside

        def counted(folder, kept, step, serial):
            save(folder, kept, step, serial)
            self.count += 1
            self.stages.append((step, kept.facts["progress"]["stage"], kept.facts["progress"]["updates"]))
            if self.count == self.after or (self.at and self.at(self.stages[-1])):
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save_inside", counted)
