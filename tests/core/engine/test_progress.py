"""A run that dies inside a step goes on there, and comes to the bits of one that was left alone."""

import json

import pytest
import torch
from helpers.runs import THREE_STEPS

from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.progress import SaveEvery
from lwmfw.errors import Interrupted
from lwmfw.recipe.load import load_recipe
from lwmfw.record import checkpoint
from lwmfw.testing import tiny_recipe

MEMORY = {"budget": "12 exemplars", "select": {"use": "herding"}}
SEEN = {"use": "cross_entropy", "over": "seen"}
METHODS = {
    "finetune": {},
    "adam": {"training": {"optimizer": "adam", "schedule": "steps", "milestones": [0.5]}},
    "lwm": {"penalties": [{"use": "L_D"}, {"use": "L_AD"}], "data": {"size": 16}},
    "icarl": {"penalties": [{"use": "L_D"}], "memory": MEMORY, "readouts": [{"use": "cnn"}, {"use": "nme"}]},
    "replay": {"memory": MEMORY | {"replay": 0.25}},
    "jpeg": {"memory": MEMORY | {"budget": "20 kB", "codec": {"use": "jpeg"}}},
    "mnemonics": {"memory": MEMORY | {"refine": [{"use": "mnemonics", "iterations": 2, "queries": 8}]}},
    "podnet": {
        "backbone": {"use": "podnet32"},
        "classifier": {"use": "proxies"},
        "objective": {"use": "nca", "over": "seen", "legacy_margin": True},
        "penalties": [{"use": "POD"}, {"use": "POD-flat"}],
        "memory": MEMORY,
        "phases": [{"use": "balanced", "epochs": 2}],
    },
    "ucir": {
        "classifier": {"use": "cosine"},
        "objective": SEEN,
        "penalties": [{"use": "less-forget"}, {"use": "margin-ranking"}],
        "memory": MEMORY,
    },
    **{name: {"penalties": [{"use": name}]} for name in ("ewc", "si", "mas", "self-rotation")},
    "efc": {"objective": {"use": "cross_entropy"}, "penalties": [{"use": "efc"}]},
    "muc": {"penalties": [{"use": "muc", "other": {"use": "synthetic"}, "side_epochs": 2}], "objective": SEEN},
    "bic": {"penalties": [{"use": "bic"}], "memory": MEMORY | {"budget": "24 exemplars"}, "objective": SEEN},
    "wa": {"penalties": [{"use": "wa"}], "memory": MEMORY, "objective": SEEN},
    "freeze": {"penalties": [{"use": "freeze"}], "readouts": [{"use": "cnn"}, {"use": "som"}]},
    "der": {"backbone": {"use": "der", "prune": True}, "objective": SEEN, "memory": MEMORY}
    | {"phases": [{"use": "balanced", "epochs": 2, "fresh": True}]},
    "pnn": {"backbone": {"use": "pnn"}, "training": {"lr": 0.01}},
    "den": {"backbone": {"use": "den"}, "classifier": {"use": "step-heads"}},
    "rmm": {"memory": MEMORY | {"rate": {"use": "rmm"}}},
    "mecil": {"memory": MEMORY | {"budget": "120 kB", "codec": {"use": "mecil", "epochs": 1}}},
    "carried over": {"readouts": [{"use": "cnn"}, *({"use": n, "transport": True} for n in ("ncm", "lda", "ridge"))]}
    | {"penalties": [{"use": "L_D"}]},
}
FAST = ("lwm", "podnet", "si")


def tables(name):
    method = METHODS[name]
    data = THREE_STEPS["data"] | {"size": 12} | method.get("data", {})
    training = {"batch_size": 8, "epochs": 2} | method.get("training", {})
    backbone = {"use": "resnet20"} | method.get("backbone", {})
    backbone |= {} if backbone["use"] == "thesis32" else {"width": 4}
    return THREE_STEPS | method | {"data": data, "training": training, "backbone": backbone}


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
    count, fast = dying.count, name in FAST
    for after in sorted({count * share // 8 for share in range(1, 8)}) if not fast else (count // 3, count - 3):
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
