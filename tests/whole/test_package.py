"""The wheel, built from the sdist, runs a recipe outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_the_wheel_made_from_the_sdist_runs_a_recipe_elsewhere(tmp_path):
    def run(*command, **options):
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dist = tmp_path / "dist"
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", dist, cwd=ROOT)
    (sdist,) = dist.glob("*.tar.gz")
    run("tar", "xf", sdist, "-C", tmp_path)
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=unpacked)
    (wheel,) = dist.glob("*.whl")

    # an environment of its own that borrows the libraries, but not the checkout, of this one
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    (site,) = (home / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    outside = tmp_path / "outside"
    outside.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = run(python, "-c", "import lwmfw, lwmfw_plugins; print(lwmfw.__file__)", cwd=outside, env=clean)
    assert str(home) in where
    quick = ["--set", "training.epochs=1", "--set", "backbone.width=2", "--out", "run"]
    table = run(home / "bin" / "lwmfw", "run", "lwm", *quick, cwd=outside, env=clean)
    assert table.startswith("accuracy")
    assert (outside / "run" / "DONE").exists()
    assert (outside / "run" / "report.html").exists()
    assert "lwm" in run(home / "bin" / "lwmfw", "recipes", cwd=outside, env=clean)
    assert "mine/recipe.schema.json" in run(home / "bin" / "lwmfw", "recipes", "--copy", "mine", cwd=outside, env=clean)
    for kind in ("data", "observer"):
        run(home / "bin" / "lwmfw", "plugin", "new", f"my-{kind}", "--kind", kind, cwd=outside, env=clean)
