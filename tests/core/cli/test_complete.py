"""What a shell proposes: asked as bash asks, and at once."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest
from helpers.command import lwmfw

from lwmfw.cli import complete
from lwmfw.hookspecs import SPECS
from lwmfw.recipe import shipped

COMMAND = (
    "import sys; sys.argv = ['lwmfw']\n"
    "from lwmfw.cli import main\n"
    "try: main()\n"
    "finally: assert 'torch' not in sys.modules"
)


def proposed(*words):
    """The lines that bash gets for the last of the words."""
    asked = {
        "_LWMFW_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["lwmfw", *words]),
        "COMP_CWORD": str(len(words)),
    }
    with patch.dict(os.environ, asked):
        return [line for line in lwmfw().stdout.split("\n") if line]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with recipes, runs, and other things."""
    for name in ("runs/lwm/a", "runs/lwm/b", "runs/icarl", "mine", ".git"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mine/lwm.toml", "mine/notes.txt", "l w.toml", "runs/lwm/a/resolved.toml", "runs/lwm/b/resolved.toml"):
        (tmp_path / name).touch()
    (tmp_path / "runs" / "\x1b[31m.toml").touch()
    monkeypatch.chdir(tmp_path)


def test_verbs_options_and_choices_are_proposed():
    assert proposed("res") == ["resume"]
    assert proposed("run", "--save") == ["--save-every"]
    assert proposed("run", "lwm", "--resume", "n") == ["never"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["run", "check", "show", "search"])
def test_a_recipe_is_a_shipped_one_or_a_file(verb):
    assert proposed(verb, "l") == ["lwm", "l w.toml"]
    assert proposed(verb, "fashion-mnist-mini/lwf") == ["fashion-mnist-mini/lwf-mc", "fashion-mnist-mini/lwf-memory"]
    assert proposed(verb, "mi") == ["mine/lwm.toml"]
    assert proposed(verb, "mine/") == ["mine/lwm.toml"]
    assert proposed(verb, "runs/") == ["runs/lwm/a/", "runs/lwm/b/"]  # a way, as far as is known
    assert proposed(verb, "nowhere/") == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "words", [["resume"], ["predict"], ["compare"], ["merge"], ["merge", "one"], ["run", "lwm", "--from"]]
)
def test_a_run_is_a_directory_of_one(words):
    assert proposed(*words, "ru") == ["runs/icarl/", "runs/lwm/"]
    assert proposed(*words, "runs/l") == ["runs/lwm/a", "runs/lwm/b"]
    assert proposed(*words, "runs/lwm/b") == ["runs/lwm/b"]


@pytest.mark.usefixtures("folder")
def test_hidden_folders_are_proposed_to_whom_asks_for_them():
    assert [path for path in complete.run("") if path.startswith(".")] == []
    assert complete.recipe("/nowhere") == []


def test_components_hooks_and_shipped_recipes_go_by_name():
    assert proposed("plugins", "L_") == ["L_AD", "L_D"]
    assert proposed("hooks", "before") == [name for name in SPECS if name.startswith("before")]
    assert proposed("recipes", "cub200/") == [name for name in shipped.recipes() if name.startswith("cub200/")]


@pytest.mark.parametrize("words", ["run l", "plugins L"])
def test_nothing_heavy_is_loaded_for_it(words):
    asked = {"_LWMFW_COMPLETE": "complete_bash", "COMP_WORDS": f"lwmfw {words}", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
