"""Nothing is asked of a network: not by a run, nor by the verbs that use it, nor where there is none."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from helpers.pictures import make_folder

from lwmfw.testing import tiny_recipe

VERBS = [
    ["plugins"],
    ["recipes"],
    ["schema"],
    ["hooks"],
    ["check", "tiny.toml"],
    ["show", "tiny.toml"],
    ["run", "tiny.toml", "--out", "run"],
    ["resume", "left"],
    ["run", "tracked.toml", "--out", "tracked"],
    ["run", "lwm", "--out", "demo", "--set", "training.epochs=1", "--set", "backbone.width=2"],
    ["predict", "run", "pictures"],
    ["extend", "run", "--data", "pictures", "--out", "more"],
    ["verify", "run"],
    ["verify", "more", "--data", "pictures"],
    ["compare", "run", "demo"],
]
SENT = re.compile(r"(?:connect|sendto)\(\d+, .*sa_family=(AF_INET6?)")


def prepare(folder):
    tiny_recipe({"readouts": [{"use": "ridge"}], "penalties": [{"use": "freeze"}]}, folder)
    trackers = [name for name in ("tensorboard", "trackio", "wandb", "mlflow") if find_spec(name)]
    tiny_recipe({"name": "tracked", "observers": [{"use": name} for name in trackers]}, folder)
    make_folder(folder / "pictures", ["ant", "bee"], count=3)


def started(command, folder, before=()):
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "120"}
    full = [*before, sys.executable, "-m", "lwmfw", *command]
    return subprocess.run(full, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def all_verbs(folder, before=lambda number: ()):
    prepare(folder)
    for number, command in enumerate(VERBS):
        if command[0] == "resume":  # what the run has left of itself behind its first step
            shutil.copytree(folder / "run", folder / "left")
            (folder / "left" / "DONE").unlink()
            (folder / "left" / "results.json").unlink()
            shutil.rmtree(folder / "left" / "checkpoints" / "step-0002")
        done = started(command, folder, before(number))
        assert done.returncode == 0, (command, done.stderr[-1000:])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_no_verb_connects_to_anything(tmp_path):
    def traced(number):
        return ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", f"trace-{number}"]

    all_verbs(tmp_path, traced)
    asked = {path.name: SENT.findall(path.read_text()) for path in tmp_path.glob("trace-*")}
    assert len(asked) == len(VERBS)
    assert not [name for name, families in asked.items() if families]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_verb_works_where_there_is_no_network(tmp_path):
    apart = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs unshare, and leave to use it")
    all_verbs(tmp_path, lambda number: apart)


def test_a_connection_would_be_seen():
    assert SENT.findall('1 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("1.1.1.1")}, 16)')
    assert not SENT.findall('1 connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110)')
