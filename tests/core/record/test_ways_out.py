"""Whatever lies in a run directory, nothing is written, removed or waited for outside it."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.command import lwmfw
from helpers.runs import halted

from lwmfw import Observer, hookimpl
from lwmfw.errors import RunFailed
from lwmfw.testing import tiny_run


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run that stopped behind its first step."""
    folder = tmp_path_factory.mktemp("half")
    here = os.getcwd()
    try:
        return halted(folder, {})
    finally:
        os.chdir(here)


@pytest.fixture
def outside(tmp_path):
    """A folder of a person's own, with what may be taken for parts of a run."""
    folder = tmp_path / "outside"
    (folder / "step-0001").mkdir(parents=True)
    (folder / "step-0002.tmp").mkdir()
    for name in ("precious", "step-0001/precious", "step-0002.tmp/precious"):
        (folder / name).write_text("precious")
    return folder


def state_of(folder):
    return sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


LINKS = {
    "checkpoints": "",
    "checkpoints/step-0002.tmp": "",
    "checkpoints/inside-0002-000001": "",
    "metrics.jsonl": "precious",
    "metrics.jsonl.tmp": "precious",
    "results.json.tmp": "precious",
    "accuracy.csv.tmp": "new",
    "env.json.tmp": "new",
    "DONE.tmp": "new",
    "owner": "precious",
    ".lock": "precious",
    "plugins": "",
    "attention": "",
}


@pytest.mark.parametrize("verb", ["resume", "run"])
@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_refused_and_what_it_leads_to_is_left_alone(name, verb, half, outside, tmp_path):
    shutil.copytree(half, "run")
    link = Path("run") / name
    shutil.rmtree(link, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / LINKS[name])
    before = state_of(outside)
    done = lwmfw("resume", "run") if verb == "resume" else lwmfw("run", half.parent / "tiny.toml", "--out", "run")
    assert done.returncode == 4, done.stderr
    assert f"run/{name}: is a link that leads out of the run directory; put what" in done.stderr
    assert state_of(outside) == before


def test_a_pipe_is_not_waited_for(half):
    shutil.copytree(half, "run")
    os.unlink("run/metrics.jsonl")
    os.mkfifo("run/metrics.jsonl")
    done = lwmfw("resume", "run")
    assert (done.returncode, done.stderr) == (4, "run/metrics.jsonl: is no regular file; remove it\n")


def test_a_link_inside_and_a_directory_behind_a_link_are_taken(half):
    """As a person may have put their runs on another disk."""
    shutil.copytree(half, "disk/run")
    os.symlink("disk", "runs")
    os.rename("disk/run/checkpoints/step-0001", "disk/run/checkpoints/first")
    os.symlink("first", "disk/run/checkpoints/step-0001")
    assert lwmfw("resume", "runs/run").returncode == 0


@pytest.mark.parametrize("name", ["../../x", "/tmp/lwmfw-x", "a/../../x", "out/x"])  # noqa: S108
def test_a_component_writes_no_file_outside(name, tmp_path):
    (tmp_path / "elsewhere").mkdir()

    class Writes:
        def __init__(self, options):
            pass

        @hookimpl
        def after_step(self, run):
            if name.startswith("out") and not Path("run/out").is_symlink():
                Path("run/out").symlink_to("../elsewhere")
            run.directory.write(name, b"x")

    with pytest.raises(RunFailed, match="leads out of the run directory; write a file in it"):
        tiny_run({"observers": [{"use": "writes"}]}, tmp_path, components=[Observer("writes", Writes)])
    assert not [path for path in (tmp_path / "x", tmp_path.parent / "x", tmp_path / "elsewhere" / "x") if path.exists()]
