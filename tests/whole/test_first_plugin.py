"""From `lwmfw plugin new` to a passing run, as an author types it: the table of docs/plugins.md.

pytest -m long tests/whole/test_first_plugin.py -s
"""

import os
import subprocess
import sysconfig
import venv

import pytest
from helpers import ROOT

from lwmfw.components import KINDS

CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A virtual environment that borrows this checkout and the libraries of this one, without a network."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    # a path in a .pth file comes behind the folder that it lies in; the checkout is to come before another's
    (site / "borrowed.pth").write_text(f"{ROOT}\n{ROOT / 'plugins'}\n{sysconfig.get_paths()['purelib']}\n")
    (home / "bin" / "lwmfw").write_text(f"#!{home}/bin/python\nfrom lwmfw.cli import main\nmain()\n")
    (home / "bin" / "lwmfw").chmod(0o755)
    return home


@pytest.mark.timeout(600)
@pytest.mark.long  # CI goes the same way with all of them at once
@pytest.mark.parametrize("kind", [kind.kind for kind in KINDS])
def test_an_author_needs_four_commands(kind, home, tmp_path):
    def type_(program, *arguments):
        done = subprocess.run(
            [home / "bin" / "python", *program, *arguments], capture_output=True, text=True, check=False, env=CLEAN
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lwmfw, before = [home / "bin" / "lwmfw"], os.times()
    said = type_(lwmfw, "plugin", "new", f"my-{kind}", "--kind", kind, "--out", "mine")
    assert said.partition("next:\n")[2].split("\n")[0] == "  pip install -e 'mine[test]'"
    type_(["-m", "pip"], "install", "--no-build-isolation", "--no-deps", "-e", "mine[test]")
    type_(["-m", "pytest"], "mine")
    table = type_(lwmfw, "run", "mine/recipe.toml")
    seconds = sum(os.times()[2:4]) - sum(before[2:4])  # of the processor: the commands are this process's children
    assert table.startswith("accuracy")
    assert f"from lwmfw-my-{kind} 0.1.0" in type_(lwmfw, "plugins", f"my-{kind}")
    code = (tmp_path / "mine" / f"lwmfw_my_{kind}.py").read_text()
    print(f"\n| {kind} | 4 | {sum(map(bool, map(str.strip, code.splitlines())))} | {seconds:.0f} |")
