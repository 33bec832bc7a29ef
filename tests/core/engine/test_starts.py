"""What a start changes in the directory of a run: where it was left, whatever lies there, it is gone on from."""

import shutil

import pytest
from helpers.inside import bits, die_at, run
from helpers.runs import THREE_STEPS

from lwmfw.errors import Interrupted
from lwmfw.record import checkpoint

RECIPE = THREE_STEPS | {"training": {"epochs": 1, "batch_size": 8}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a run that was left inside its third step, and the bits of the same one to its end."""
    folder = tmp_path_factory.mktemp("begun")
    told = bits(run(RECIPE, folder / "whole"))
    die_in(3, folder / "left")
    return folder / "left", told


@pytest.fixture
def left(begun, tmp_path):
    return shutil.copytree(begun[0], tmp_path / "left")


def die_in(step, folder):
    """Have the run in a folder die in a step, when its place behind the third update is kept."""
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, step, 0, 3)
        with pytest.raises(Interrupted):
            run(RECIPE, folder)


def alike(one, other):
    """Whether two have the same bits."""
    (told, tensors), (told_too, tensors_too) = one, other
    return told == told_too and all(v.equal(tensors_too[key]) for key, v in tensors.items())


def test_a_place_in_a_later_step_is_left_behind(begun, left):
    kept = left / "run" / "checkpoints"
    shutil.rmtree(kept / "step-0002")
    (left / "run" / "results.json").unlink()  # to train the missing steps again
    die_in(2, left)
    assert [path.name.split("-")[1] for path in kept.glob("inside-*")] == ["0002"]
    assert checkpoint.left_inside(kept) == 2
    assert alike(bits(run(RECIPE, left)), begun[1])
