"""On a GPU the host runs ahead: nothing of a batch is sent or waited for."""

import json

import pytest
import torch
from helpers.inside import Dying, bits, run
from helpers.methods import METHODS, tables

from lwmfw import Observer, hookimpl
from lwmfw.api import execute
from lwmfw.assembly.assemble import assemble
from lwmfw.data.images import Images
from lwmfw.data.loader import EpochShape, Loader
from lwmfw.errors import Interrupted
from lwmfw.recipe.load import load_recipe
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw.testing.tiny import beside_installed

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Strict:
    """From the second update of an epoch to its last one, whatever makes the host wait is an error."""

    def __init__(self, options):
        self.updates = 0

    @hookimpl
    def before_step(self, run, step, data):
        self.of_phase = {phase.name: run.planned_shape(step, phase).batches for phase in run.phases(step)}
        self.of_phase["main"] = EpochShape(len(data), 0, run.recipe.training.batch_size).batches
        self.run = run

    @hookimpl
    def after_update(self):
        position = self.run.position
        watched = 2 <= position.batch < self.of_phase[position.phase] - 1
        torch.cuda.set_sync_debug_mode("error" if watched else "default")
        self.updates += watched


class Interrupting:
    """Interrupts the second step once."""

    armed = True

    def __init__(self, options):
        pass

    @hookimpl
    def before_step(self, step):
        if step.index == 2 and Interrupting.armed:
            Interrupting.armed = False
            raise KeyboardInterrupt


def on_gpu(recipe, folder, *components):
    """A run on the GPU."""
    observers = {"observers": [{"use": component.name} for component in components]}
    catalogue = beside_installed(components) if components else None
    resolved = load_recipe(tiny_recipe(recipe | observers, folder), catalogue=catalogue)
    return execute(assemble(resolved), folder / "run", "cuda", "auto")


@pytest.mark.parametrize("replay", [0.0, 0.5])
def test_an_epoch_sends_its_order_and_its_draws_once_and_not_batch_by_batch(replay, monkeypatch):
    """Counted as calls that name a device, which on a GPU are copies that the host waits for."""
    sent = []
    plain = torch.Tensor.to
    watched = lambda self, *args, **more: sent.append(args[:1]) or plain(self, *args, **more)  # noqa: E731
    images = Images(torch.zeros(64, 1, 8, 8, dtype=torch.uint8), torch.arange(64).sort().values)
    loader = Loader(torch.zeros(1), torch.ones(1), padding=2, flip=True)

    def copies(batch_size):
        sent.clear()
        shape = EpochShape(64, 16, batch_size, replay)
        monkeypatch.setattr(torch.Tensor, "to", watched)
        count = len(list(loader.training_batches(images, shape, torch.Generator().manual_seed(1))))
        monkeypatch.setattr(torch.Tensor, "to", plain)
        assert count == shape.batches
        # crop_and_flip asks once more for what is there already
        return len([args for args in sent if args and isinstance(args[0], torch.device)]) - 2 * count

    assert copies(4) == copies(16) > 0


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", METHODS)
def test_no_update_waits_for_the_gpu(name, tmp_path):
    strict = Observer("strict", Strict)
    try:
        run = on_gpu(tables(name), tmp_path, strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.assembly.components["strict"].instance.updates > 3


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu_an_interrupted_run_comes_to_the_same_bits(name, precision, tmp_path):
    recipe = tables(name)
    recipe = recipe | {"training": recipe["training"] | {"precision": precision}}
    for place in ("whole", "interrupted"):
        (tmp_path / place).mkdir()
    Interrupting.armed = False
    whole = on_gpu(recipe, tmp_path / "whole", Observer("interrupting", Interrupting))
    Interrupting.armed = True
    with pytest.raises(Interrupted):
        on_gpu(recipe, tmp_path / "interrupted", Observer("interrupting", Interrupting))
    again = on_gpu(recipe, tmp_path / "interrupted", Observer("interrupting", Interrupting))
    assert [s.confusion for s in again.results.steps] == [s.confusion for s in whole.results.steps]
    state, other = again.model.state_dict(), whole.model.state_dict()
    assert [key for key, value in state.items() if not torch.equal(value, other[key])] == []
    if whole.memory:
        assert again.memory.state()["encoded"].equal(whole.memory.state()["encoded"])


@needs_gpu
@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu_a_run_that_dies_inside_a_step_comes_to_the_same_bits(name, tmp_path, monkeypatch):
    dying = Dying(monkeypatch)
    told, tensors = bits(run(tables(name), tmp_path / "whole", "cuda"))
    count = dying.count
    for after in (count // 3, count // 2, count - 1):
        dying.count, dying.after = 0, after
        with pytest.raises(Interrupted):
            run(tables(name), tmp_path / str(after), "cuda")
        dying.after = 0
        again, resumed = bits(run(tables(name), tmp_path / str(after), "cuda"))
        assert [key for key, v in tensors.items() if not v.equal(resumed[key])] == [], dying.stages[after - 1]
        assert again == told, dying.stages[after - 1]


@needs_gpu
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_computes_what_a_cpu_does(name, tmp_path):
    """The terms of the first epoch, which rounding has not yet led apart."""
    recipe = tables(name) | {"training": {"batch_size": 4, "epochs": 1, "lr": 0.001}}
    for place in ("cpu", "gpu"):
        (tmp_path / place).mkdir()
    on_gpu(recipe, tmp_path / "gpu")
    there = tiny_run(recipe, tmp_path / "cpu").path / "metrics.jsonl"
    terms = [rows(path)[0]["terms"] for path in (there, tmp_path / "gpu" / "run" / "metrics.jsonl")]
    assert terms[0] == pytest.approx(terms[1], rel=1e-3)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
