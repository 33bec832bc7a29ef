"""What the pages tell people to write works as they say."""

import re
import shlex
from contextlib import chdir

import pytest
from helpers import ROOT
from helpers.command import lwmfw
from helpers.results import results_of

from lwmfw import errors
from lwmfw.assembly.assemble import assemble
from lwmfw.components import KINDS
from lwmfw.hookspecs import RUN_HOOKS
from lwmfw.recipe import shipped
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import parse_settings

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def block(page, label):
    """The code block behind a comment."""
    return re.search(rf"<!-- {label} -->\n```\w*\n(.*?)```", page, re.DOTALL)[1]


def test_the_table_of_the_readme_names_every_component():
    table = README.partition("## What is in it")[2].partition("\n\n`lwmfw plugins")[0]
    rows = dict(re.findall(r"^\| ([a-z]+) \| (.*) \|$", table, re.MULTILINE))
    for kind in ("selector", "rate", "refiner", "codec"):
        (rows[kind],) = re.findall(rf"{kind}s? ((?:`[^`]+`(?:, )?)+)", rows["memory"])
    del rows["memory"], rows["kind"]
    named = {kind: sorted(re.findall("`([^`]+)`", text)) for kind, text in rows.items()}
    shipped = [c for c in discover().components if c.provider.name == "lwmfw"]
    assert named == {kind.kind: sorted(c.name for c in shipped if c.kind == kind.kind) for kind in KINDS}


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


def test_every_paper_of_the_readme_is_in_the_list_and_the_citations_agree():
    papers, citation = (ROOT / "docs" / "papers.md").read_text(), (ROOT / "CITATION.cff").read_text()
    linked = set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", README))
    assert "1811.08051" in linked
    assert linked <= set(re.findall(r"\[arXiv (\d{4}\.\d{5})\]", papers))
    assert all(
        number == other for number, other in re.findall(r"arXiv ([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)", papers)
    )
    (version,) = re.findall(r"^version: (.*)$", citation, re.MULTILINE)
    assert f"Version {version}" in papers
    for name in re.findall(r"family-names: (\w+)", citation):
        assert f"{name}, " in papers, "BibTeX has every author of the paper"


PAGES = {path: path.read_text() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path):
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", re.sub(r"```.*?```", "", PAGES[path], flags=re.DOTALL)):
        assert (path.parent / link).exists(), link


def test_no_page_speaks_of_somebodys_machine():
    for path, text in PAGES.items():
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|usr|work|Users|mnt)/", text), path


def test_what_papers_names_as_code_are_components():
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "papers.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall("`([^`]+)`", row)}
    assert named - {"search"} <= {component.name for component in discover().components}
    assert {"L_AD", "herding", "fecam"} <= named


def test_the_exit_codes_are_those_of_the_errors():
    table = PAGES[ROOT / "docs" / "resume.md"].partition("## Exit codes")[2].partition("## ")[0]
    listed = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(", ")}
    known = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    assert listed == known | {0, 129, 130, 143, 141}
    assert known == {1, 2, 3, 4, 5}


def test_the_measures_worked_out_by_hand_are_those_of_the_code():
    example = PAGES[ROOT / "docs" / "metrics.md"].partition("<!-- example -->")[2]
    rows = [row.split("|") for row in re.findall(r"^\| \d \|(.*)\|$", example, re.MULTILINE)]
    results = results_of([[float(cell) for cell in cells if cell.strip()] for *cells, _ in rows])
    assert [float(row[-1]) for row in rows] == pytest.approx([step.accuracy["cnn"] for step in results.steps])
    words = " ".join(example.split())
    for said, measure in (
        ("Average incremental accuracy", results.average_incremental_accuracy),
        ("last", results.last_accuracy),
        ("backward transfer", results.backward_transfer),
        ("first-step forgetting", results.first_step_forgetting),
        ("accuracy on new classes (0.9 + 0.8 + 0.9) / 3 =", results.new_class_accuracy),
    ):
        assert f"{said} {measure['cnn']:.3f}" in words
    assert f"forgetting ((0.9 - 0.7) + (0.8 - 0.5)) / 2 = {results.forgetting['cnn']:.3f}" in words


def test_the_recipe_for_ones_own_images_is_the_command_and_passes(tmp_path):
    page = PAGES[ROOT / "docs" / "own-data.md"]
    (tmp_path / "mine.toml").write_text(block(page, "recipe: photographs"))
    command = shlex.split(re.search(r"```sh\nlwmfw run (.*?)```", page, re.DOTALL)[1].replace("\\\n", ""))
    settings = parse_settings([word for word in command[1:] if word != "--set"])
    mine, set_ = load_recipe(tmp_path / "mine.toml"), load_recipe(shipped.locate(command[0]), settings)
    assemble(mine)
    assert mine.tables() | {"name": "lwm"} == set_.tables()


@pytest.mark.slow
def test_the_commands_of_the_quick_start_do_what_it_says(tmp_path):
    page = PAGES[ROOT / "docs" / "start.md"]
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(text)
    commands = "".join(re.findall(r"<!-- run: commands -->\n```sh\n(.*?)```", page, re.DOTALL)).splitlines()
    assert len(commands) == 8
    small = ["--device", "cpu", "--set", "training.epochs=1", "--set", "backbone.width=2"]
    with chdir(tmp_path):
        for command in commands:
            words = shlex.split(command)[1:]
            done = lwmfw(*words, *(small if words[0] == "run" else []))
            assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3, "a row for each run"
        told = lwmfw("check", "lwm", "--set", "penalties.L_AD.wieght=1")
    assert told.returncode == 2
    assert "did you mean 'weight'?" in told.stderr
