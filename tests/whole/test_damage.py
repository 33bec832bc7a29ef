"""Files of a run that were damaged, exchanged, lost or edited are found before anything is made of them.

`DAMAGES=2000 pytest tests/whole/test_damage.py -s` damages so many times and says what; 60 otherwise.
"""

import hashlib
import os
import random
import shutil
from collections import Counter
from types import SimpleNamespace

import pytest
from helpers.bits import bits_of
from helpers.command import lwmfw
from helpers.methods import tables

from lwmfw.api import prepared_run, record
from lwmfw.assembly.assemble import assemble
from lwmfw.engine.going_on import left_by
from lwmfw.engine.origin import origin_of
from lwmfw.engine.progress import SaveEvery
from lwmfw.errors import CheckpointRefused, Interrupted
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.tables import Origin
from lwmfw.record import checkpoint
from lwmfw.record.directory import RunDirectory
from lwmfw.record.reading import RecordedRun
from lwmfw.testing import tiny_recipe

DAMAGES = int(os.environ.get("DAMAGES", "60"))
SMALL = tables("jpeg")
SMALL |= {
    "training": {"batch_size": 8, "epochs": 1},
    "data": SMALL["data"] | {"train_per_class": 8, "test_per_class": 2},
}
FOUND = SimpleNamespace(falls_back=False, first_step=None, results=SimpleNamespace(providers={}))


def run(recipe, folder):
    prepared = prepared_run(assemble(load_recipe(recipe)), "cpu", None)
    prepared.save_every = SaveEvery(updates=2)
    record(prepared, folder, "auto")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run with exemplars as JPEG that was left inside its third step, and the same one to its end."""
    folder = tmp_path_factory.mktemp("begun")
    recipe, save = tiny_recipe(SMALL, folder), checkpoint.save_inside

    def dying(place, kept, step, serial):
        save(place, kept, step, serial)
        if step == 3 and kept.facts["progress"]["updates"]:
            raise KeyboardInterrupt

    run(recipe, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_inside", dying)
        with pytest.raises(Interrupted):
            run(recipe, folder / "run")
    return folder


@pytest.fixture
def copy(begun, tmp_path):
    return shutil.copytree(begun / "run", tmp_path / "run")


def read(path):
    """Read all that is read where a run goes on, and the first step, which other runs take."""
    recorded = RecordedRun(path)
    _ = recorded.tables
    left = left_by(FOUND, RunDirectory(path, None))
    assert left.kept
    assert left.place, "it was left inside a step"
    recorded.checkpoint(step=1)


def flipped(draw, content, others):
    place = draw.randrange(8 * len(content))
    return content[: place // 8] + bytes([content[place // 8] ^ 1 << place % 8]) + content[place // 8 + 1 :]


def zeroed(draw, content, others):
    block = draw.randrange(0, len(content), 4096)
    return content[:block] + bytes(len(content[block : block + 4096])) + content[block + 4096 :]


def cut(draw, content, others):
    return content[: draw.randrange(len(content))]


def exchanged(draw, content, others):
    return draw.choice(others)


def missing(draw, content, others):
    return None


WAYS = (flipped, zeroed, cut, exchanged, missing)


def test_whatever_is_damaged_is_found(begun, copy):
    read(copy)
    draw, told = random.Random(1), Counter()
    whole = begun / "whole"
    files = [*copy.glob("checkpoints/*/*"), *(copy / name for name in ("resolved.toml", "results.json", "SHA256SUMS"))]
    contents = {file: file.read_bytes() for file in files}
    for _ in range(DAMAGES):
        file, way = draw.choice(files), draw.choice(WAYS)
        while way is missing and file.name in ("resolved.toml", "results.json"):  # below
            way = draw.choice(WAYS)
        same = [f for f in (*files, *whole.rglob(file.name), begun / "tiny.toml") if f.name in (file.name, "tiny.toml")]
        others = [f.read_bytes() for f in same if f.read_bytes() != contents[file]]
        damaged = way(draw, contents[file], others)
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        with pytest.raises(CheckpointRefused) as refused:
            read(copy)
        message, told[f"{file.name} {way.__name__}"] = str(refused.value), told[f"{file.name} {way.__name__}"] + 1
        place = file.parent if file.name == "manifest.json" else file
        assert str(place) in message or file.name == "SHA256SUMS", (way, message)
        assert "\n" not in message
        if damaged is not None and file.name not in ("manifest.json", "SHA256SUMS"):
            assert hashlib.sha256(damaged).hexdigest() in message, "what it is"
            assert hashlib.sha256(contents[file]).hexdigest() in message, "what it should be"
        file.write_bytes(contents[file])
    read(copy)
    print(f"\n{sum(told.values())} damages found: {dict(sorted(told.items()))}")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_the_command_says_so_in_a_line_and_ends_with_4(name, copy):
    (place,) = copy.glob("checkpoints/inside-*")
    (place / name).write_bytes((place / name).read_bytes()[:-1])
    done = lwmfw("resume", copy)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"{place}/{name}: damaged")
    assert done.stderr.endswith(f"; restore it, or remove {place} to go on from the end of step 2\n")
    assert done.stderr.count("\n") == 1


def test_checkpoints_that_have_changed_places_are_found(copy):
    one, two = copy / "checkpoints" / "step-0001", copy / "checkpoints" / "step-0002"
    shutil.rmtree(two)
    shutil.copytree(one, two)
    done = lwmfw("resume", copy)
    assert done.returncode == 4
    assert f"{two}/manifest.json: is of step-0001, whose state has the sha256 " in done.stderr


def test_checkpoints_of_another_run_are_found(begun, copy, tmp_path):
    recipe = tiny_recipe(SMALL | {"seed": 2}, tmp_path)
    run(recipe, tmp_path / "other")
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", copy / "checkpoints")
    done = lwmfw("resume", copy)
    assert done.returncode == 4
    assert "step-0003: is of another recipe, seed was 2, is 1; put back the checkpoints of this run" in done.stderr


@pytest.mark.parametrize("verb", ["compare", "resume"])
def test_results_that_were_edited_are_told_and_trusted_by_nobody(verb, begun, tmp_path):
    path = shutil.copytree(begun / ("run" if verb == "resume" else "whole"), tmp_path / "run")
    file = path / "results.json"
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    done = lwmfw(verb, path)
    assert done.returncode == 4, done.stderr
    assert (
        f"{file}: changed, sha256 is {hashlib.sha256(file.read_bytes()).hexdigest()}, SHA256SUMS says " in done.stderr
    )
    if verb == "compare":
        with pytest.raises(CheckpointRefused, match=r"results\.json: changed"):  # which extend goes on from
            origin_of(Origin(run=str(path), checkpoint=checkpoint.digest(path / "checkpoints" / "step-0003")))
    shutil.copy(file, tmp_path / "alone.json")
    assert lwmfw("compare", tmp_path / "alone.json").returncode == 0, "results that have left their directory"


def test_results_that_are_gone_are_written_again(begun, copy):
    (copy / "results.json").unlink()
    assert lwmfw("resume", copy).returncode == 0
    assert bits_of(copy) == bits_of(begun / "whole")


@pytest.mark.parametrize(
    ("pattern", "said"), [("inside-*", "the beginning of its step"), ("step-0002", "the end of step 1")]
)
def test_run_falls_back_to_what_is_whole_and_says_so(pattern, said, begun, copy):
    (place,) = copy.glob(f"checkpoints/{pattern}")
    (place / "state.json").write_bytes(b"")
    refused = lwmfw("resume", copy)
    assert refused.returncode == 4
    done = lwmfw("run", begun / "tiny.toml", "--out", copy)
    assert done.returncode == 0, done.stderr
    assert f"{place}/state.json: damaged" in done.stderr
    assert f"; goes on from {said}, to the same bits; what is damaged is damaged-{place.name} now\n" in done.stderr
    shutil.rmtree(place.with_name(f"damaged-{place.name}"))
    assert bits_of(copy) == bits_of(begun / "whole")


def test_where_nothing_is_whole_nothing_goes_on(begun, copy):
    for file in copy.glob("checkpoints/*/state.json"):
        file.write_bytes(b"")
    done = lwmfw("run", begun / "tiny.toml", "--out", copy)
    assert done.returncode == 4
    assert "step-0001/state.json: damaged" in done.stderr
    assert not list(copy.glob("checkpoints/damaged-*"))


def test_a_recipe_that_is_gone_is_missed(begun, copy):
    (copy / "resolved.toml").unlink()
    for command in (("resume", copy), ("run", begun / "tiny.toml", "--out", copy)):
        done = lwmfw(*command)
        assert done.returncode == 4, done.stderr
        assert done.stderr == f"{copy}/resolved.toml: is gone, and there are checkpoints; put it back or start anew\n"
