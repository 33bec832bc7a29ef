"""The shape of the house: who may import whom, and how large a room may be."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest
from helpers import ROOT

from lwmfw.components import KINDS


def module(path):
    """The name that a file is imported by."""
    package = ROOT if path.is_relative_to(ROOT / "lwmfw") else ROOT / "plugins"
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")


def room_of(name):
    """The room, or the file at the door, that a module of the core belongs to; of lwmfw itself none."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "lwmfw" else "lwmfw_plugins"


PLURALS = {"penalty": "penalties"}
LEVELS = [
    "errors", "rng", "stopping", "components", "hookspecs", "model", "data", "recipe", "memory", "record", "assembly",
    "engine", "loop", "api", "search", "using", "showing", "sweep", "testing", "authoring",
    "cli",
]  # fmt: skip
"""The rooms of the core, and the files at its door, each of which imports those before it alone."""

CORE = sorted((ROOT / "lwmfw").rglob("*.py"))
SHIPPED = sorted((ROOT / "plugins" / "lwmfw_plugins").rglob("*.py"))
FILES = {module(path): path for path in [*CORE, *SHIPPED]}
INSIDE = [path for path in CORE if room_of(module(path)) in LEVELS]


def names(paths):
    return {"argvalues": paths, "ids": [path.relative_to(ROOT).as_posix() for path in paths]}


def imports(path, *, for_types):
    """Modules of the project, or names in `lwmfw`, that a file imports, also inside functions; for types if asked."""
    tree = ast.parse(path.read_text())
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    hidden = {id(n) for block in typing for n in ast.walk(block)}
    found = set()
    for node in ast.walk(tree):
        if for_types or id(node) not in hidden:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{a.name}" for a in node.names}
                found |= names if node.module == "lwmfw" else {name if name in FILES else node.module for name in names}
            elif isinstance(node, ast.Import):
                found |= {a.name for a in node.names}
    return {name for name in found if name.partition(".")[0] in ("lwmfw", "lwmfw_plugins")}


def circles(graph):
    """The nodes of a graph, node -> nodes, that cannot be put in an order."""
    left = dict(graph)
    while free := [node for node, wanted in left.items() if not wanted & left.keys() - {node}]:
        for node in free:
            del left[node]
    return sorted(left)


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b", "c"]


def test_there_are_files_to_look_at():
    assert len(CORE) > 40
    assert len(SHIPPED) > 40
    assert {room_of(module(path)) for path in INSIDE} == set(LEVELS)


def test_every_file_of_the_core_has_its_level():
    assert {room_of(module(path)) for path in CORE} - set(LEVELS) == {"", "__main__"}


@pytest.mark.parametrize("path", **names(INSIDE))
def test_imports_between_rooms_point_one_way(path):
    room = room_of(module(path))
    above = set(LEVELS[LEVELS.index(room) + 1 :])
    assert not {name for name in imports(path, for_types=False) if room_of(name) in above}


@pytest.mark.parametrize("package", ["lwmfw", "lwmfw_plugins"])
def test_no_files_import_one_another_in_a_circle(package):
    files = {name: path for name, path in FILES.items() if name.partition(".")[0] == package}
    graph = {name: imports(path, for_types=False) & files.keys() for name, path in files.items()}
    assert circles(graph) == []


@pytest.mark.parametrize("path", **names(CORE))
def test_the_core_knows_no_shipped_method(path):
    assert not {name for name in imports(path, for_types=True) if name.startswith("lwmfw_plugins")}


@pytest.mark.parametrize("path", **names(SHIPPED))
def test_shipped_components_import_only_what_is_public(path):
    import lwmfw

    for name in imports(path, for_types=True):
        if name.startswith("lwmfw."):
            assert name.removeprefix("lwmfw.") in lwmfw.__all__, name


def test_reading_recipes_needs_no_torch():
    files = [module(path) for path in CORE if room_of(module(path)) == "recipe"]
    code = f"import sys\nfor name in {files}: __import__(name)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for path in (ROOT / "lwmfw" / "recipe").glob("*.py"):
        assert "import torch" not in path.read_text(), path


def test_a_folder_is_a_kind_and_a_file_registers_its_components():
    """Helpers begin with an underscore; a large component is a folder of its own."""
    shipped = ROOT / "plugins" / "lwmfw_plugins"
    folders = [path for path in shipped.iterdir() if path.is_dir() and path.name != "__pycache__"]
    kinds = set()
    for folder in folders:
        (kind,) = {kind.kind for kind in KINDS if folder.name in (kind.kind, f"{kind.kind}s", PLURALS.get(kind.kind))}
        kinds.add(kind)
        for name in [file.name for file in iter_modules([str(folder)]) if not file.name.startswith("_")]:
            records = list(import_module(f"lwmfw_plugins.{folder.name}.{name}").register_components())
            assert records, name
            assert {record.kind for record in records} == {kind}, name
    assert kinds == {kind.kind for kind in KINDS}
    assert {path.stem for path in shipped.glob("*.py") if not path.name.startswith("_")} == set()


@pytest.mark.parametrize("path", **names([*CORE, *SHIPPED, *sorted((ROOT / "tests").rglob("*.py"))]))
def test_no_file_is_too_long(path):
    assert path.read_text().count("\n") <= (200 if path.name == "loop.py" else 400)


@pytest.mark.parametrize("path", **names([path for path in [*CORE, *SHIPPED] if path.name != "errors.py"]))
def test_a_command_that_a_message_shows_has_its_paths_quoted(path):
    """By `errors.command`: a folder may have spaces in its name."""
    assert not re.search(r"`lwmfw [^`]*\{", path.read_text())


MEASURED = [*map(str, (ROOT / "docs" / "measured" / "cifar100-b50").glob("*.json"))]
LIGHT = {
    "help": ["--help"],
    "version": ["--version"],
    "recipes": ["recipes"],
    "compare": ["compare", *MEASURED],
    "compare in LaTeX": ["compare", "--bytes", "--format", "latex", *MEASURED],
    "report": ["report", "--help"],
    "plot": ["plot", "--help"],
    "sweep": ["sweep", "lwm", "--seeds", "1,2", "--dry-run"],
    "check": ["check", str(ROOT / "recipes" / "lwm.toml")],
    "show": ["show", str(ROOT / "recipes" / "lwm.toml")],
    "plugins": ["plugins", "L_AD"],
    "hooks": ["hooks"],
    "schema": ["schema"],
    "plugin": ["plugin", "new", "margin", "--kind", "penalty", "--out", "margin"],
    "explain": ["explain", "--help"],
}


@pytest.mark.parametrize("verb", LIGHT)
def test_verbs_that_only_talk_or_write_a_template_import_nothing_heavy(verb):
    code = (
        "import sys; sys.argv = ['lwmfw', *sys.argv[1:]]\n"
        "from lwmfw.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "for heavy in ('torch', 'matplotlib', 'jinja2'): assert heavy not in sys.modules, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT[verb]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
