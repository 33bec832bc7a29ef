"""Exemplars of a checkpoint that means harm: whole by its digests, and refused before an image is made of it."""

import hashlib
import json
import shutil

import pytest
import torch
from helpers.command import lwmfw
from helpers.growth import Taken
from helpers.photographs import photographs
from helpers.runs import halted
from safetensors.torch import load_file, save_file

from lwmfw import ImageFiles, Images
from lwmfw.data.images import StoredImage
from lwmfw.errors import CheckpointRefused
from lwmfw.memory.store import Memory
from lwmfw.recipe.budget import Budget
from lwmfw_plugins.codecs.raw import Raw

NONE = torch.empty(0, dtype=torch.int64)
SETS = {
    "images": Images(torch.empty(0, 3, 8, 8, dtype=torch.uint8), NONE),
    "photographs": ImageFiles([], NONE, 8, 16),
}


def memory(kind):
    return Memory(Budget("exemplars", 10), Raw(None), SETS[kind])


def state_of(kind):
    """Of three exemplars."""
    held = memory(kind)
    held.exemplars = [StoredImage(bytes(192), 8, 8)] * 3
    held.labels = torch.tensor([0, 1, 1])
    return held.state()


HOSTILE = {
    "negative lengths": {"lengths": torch.tensor([-192, 192, 576])},
    "lengths that overflow": {"lengths": torch.tensor([2**62, 2**62, 576])},
    "fewer lengths": {"lengths": torch.tensor([192, 384])},
    "more lengths": {"lengths": torch.tensor([192, 192, 192, 0])},
    "lengths of fractions": {"lengths": torch.tensor([192.0, 192, 192])},
    "lengths in a table": {"lengths": torch.tensor([[192, 192, 192]])},
    "fewer bytes": {"encoded": torch.zeros(575, dtype=torch.uint8)},
    "more bytes": {"encoded": torch.zeros(577, dtype=torch.uint8)},
    "bytes that are none": {"encoded": torch.zeros(576)},
    "large sizes": {"sizes": torch.full((3, 2), 60_000)},
    "vast sizes": {"sizes": torch.full((3, 2), 2**40)},
    "wide ones": {"sizes": torch.tensor([[8, 2**16]] * 3)},
    "empty sizes": {"sizes": torch.zeros(3, 2, dtype=torch.int64)},
    "negative sizes": {"sizes": torch.full((3, 2), -8)},
    "sizes of three": {"sizes": torch.full((3, 3), 8)},
    "fewer labels": {"labels": torch.tensor([0, 1])},
    "negative labels": {"labels": torch.tensor([-1, 0, 1])},
    "labels in another order": {"labels": torch.tensor([1, 0, 1])},
    "labels of fractions": {"labels": torch.tensor([0.0, 1, 1])},
    "no labels": {"labels": None},
    "words": {"labels": "0, 1, 1"},
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_before_memory_is_taken(case, kind):
    held = memory(kind)
    with Taken() as taken, pytest.raises(CheckpointRefused, match=r"^memory: [^\n]* in the checkpoint; start the run"):
        held.restore(state_of(kind) | HOSTILE[case])
    assert held.exemplars == []
    assert taken.peak < 20


@pytest.mark.parametrize("kind", SETS)
def test_what_was_kept_is_taken(kind):
    held = memory(kind)
    held.restore(state_of(kind))
    assert [len(each.encoded) for each in held.exemplars] == [192] * 3
    assert len(held.images()) == 3


def test_a_state_without_a_part_is_refused():
    state = state_of("images")
    del state["sizes"]
    with pytest.raises(CheckpointRefused, match="sizes of exemplars are missing"):
        memory("images").restore(state)


def forged(run, **changed):
    """Change exemplars in the newest checkpoint of a run, and its digests with them."""
    folder = max((run / "checkpoints").glob("step-*"))
    tensors = load_file(folder / "tensors.safetensors")
    save_file(
        tensors | {f"component.[memory]/{name}": v for name, v in changed.items()}, folder / "tensors.safetensors"
    )
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _PARTS}
    (folder / "manifest.json").write_text(json.dumps(digests))


_PARTS = ("tensors.safetensors", "state.json")


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_run_refuses_it_with_exit_code_4(codec, tmp_path):
    half = halted(tmp_path / "half", photographs(codec))
    held = load_file(max((half / "checkpoints").glob("step-*")) / "tensors.safetensors")["component.[memory]/labels"]
    for name, words in {"sizes": "sizes that are not stored", "labels": "classes that it does not know"}.items():
        shutil.copytree(half, name)
        forged(tmp_path / name, **{name: torch.full((len(held), 2)[: 2 if name == "sizes" else 1], 60_000)})
        done = lwmfw("resume", name)
        assert done.returncode == 4, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
