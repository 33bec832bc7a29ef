"""What the pages tell people to write works as they say."""

import re

from helpers import ROOT

import lwmfw
from lwmfw.hookspecs import RUN_HOOKS
from lwmfw.testing import tiny_recipe

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def block(page, label):
    """The code block behind a comment."""
    return re.search(rf"<!-- {label} -->\n```\w*\n(.*?)```", page, re.DOTALL)[1]


def test_the_penalty_of_contributing_works_as_it_is_told(tmp_path):
    code = block(CONTRIBUTING, "penalty")
    (tmp_path / "angles.py").write_text(code)
    tiny_recipe({"name": "lwm", "penalties": [{"use": "L_D"}, {"use": "L_AD"}]}, tmp_path)
    (tmp_path / "mine.toml").write_text(block(CONTRIBUTING, "recipe"))
    results = lwmfw.run(tmp_path / "mine.toml", out=tmp_path / "run", device="cpu")
    assert set(results.providers) >= {"L_D", "angles"}
    assert "L_AD" not in results.providers


def test_it_is_about_20_lines_and_passes_its_examination():
    code = block(CONTRIBUTING, "penalty")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code + block(CONTRIBUTING, "examination"), "contributing", "exec"), {})  # noqa: S102 - our own page


def test_contributing_draws_every_hook_of_the_loop():
    drawing = re.search(r"    before_run.*?after_run", CONTRIBUTING, re.DOTALL)[0]
    places = [drawing.index(hook) for hook in RUN_HOOKS]
    assert places == sorted(places)


def test_pages_are_not_longer_than_a_reader_has_patience():
    assert CONTRIBUTING.count("\n") <= 200
    assert README.count("\n") <= 150


def test_readme_names_both_commands():
    assert "lwmfw run recipes/lwm.toml" in block(README, "run")
    assert "pytest" in block(README, "test")


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", README + CONTRIBUTING)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
