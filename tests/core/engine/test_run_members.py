"""What a plug-in may ask of a run: stated, documented, and all that shipped plug-ins touch."""

import ast
import inspect

import pytest
from helpers import ROOT

from lwmfw import Run
from lwmfw.engine.run import FOR_PLUGINS

SHIPPED = sorted((ROOT / "plugins").rglob("*.py"))
INNER = {
    "directory": {"path", "write", "folder", "tables", "epochs"},
    "memory": {"budget", "cost", "as_stored", "images", "exemplars"},
}
"""What they may ask of what a run has, where the core has more to do with it than they."""


def chains(path):
    """Every `run.a.b` of a file as ("a", "b"), `run.a` as ("a", None)."""
    tree = ast.parse(path.read_text())
    outer = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "run":
            yield node.attr, outer.get(id(node))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT / "plugins").as_posix())
def test_plug_ins_touch_what_is_stated_and_nothing_else(path):
    for member, inner in chains(path):
        assert member in FOR_PLUGINS, f"run.{member}"
        assert inner is None or member not in INNER or inner in INNER[member], f"run.{member}.{inner}"


def test_some_plug_in_is_seen_to_ask():
    assert {member for path in SHIPPED for member, _ in chains(path)} > {"features", "loader", "memory", "directory"}


@pytest.mark.parametrize("member", FOR_PLUGINS)
def test_what_is_stated_is_documented(member):
    stated = inspect.getattr_static(Run, member, None)
    own = inspect.getdoc(stated.fget if isinstance(stated, property) else stated) if stated is not None else None
    assert own or f"\n        {member}: " in Run.__doc__


def test_the_manual_of_a_run_has_every_field_once():
    lines = Run.__doc__.partition("Attributes:")[2].splitlines()
    named = [line.strip().partition(":")[0] for line in lines if ": " in line]
    assert sorted(named) == sorted(name for name in Run.__dataclass_fields__ if name[0] != "_")
