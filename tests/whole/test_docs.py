"""What the pages tell people to write works as they say."""

import re

from helpers import ROOT

from lwmfw.components import KINDS
from lwmfw.hookspecs import RUN_HOOKS
from lwmfw.recipe.catalogue import discover

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


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", README + CONTRIBUTING)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
