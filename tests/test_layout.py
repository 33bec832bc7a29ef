"""The shape of the house: who may import whom, and how large a room may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "lwmfw").glob("*.py"))
SHIPPED = sorted((ROOT / "plugins" / "lwmfw_plugins").glob("**/*.py"))
LAYERS = [
    "errors", "position", "rng", "budget", "types", "hookspecs", "components", "plugins", "source",
    "messages", "recipe", "tradeoff", "scenario", "guard", "assemble", "manual", "schema", "shipped", "model",
    "features", "decoding", "data", "memory", "terms", "optimizer", "metrics", "record", "compare", "checkpoint",
    "first_step", "state", "plan", "evaluate", "exemplars", "loop", "api", "search", "tiny", "testing", "cli",
]  # fmt: skip


def imports(path, *, for_types):
    """Modules of the project that a file imports, also inside functions; those for types only if asked for."""
    tree = ast.parse(path.read_text())
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    hidden = {id(n) for block in typing for n in ast.walk(block)}
    found = set()
    for node in ast.walk(tree):
        if for_types or id(node) not in hidden:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "lwmfw" else []
                found |= {node.module, *names}
            elif isinstance(node, ast.Import):
                found |= {a.name for a in node.names}
    return found


def test_there_are_files_to_look_at():
    assert len(CORE) > 15
    assert len(SHIPPED) > 10


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_the_core_knows_no_shipped_method(path):
    assert not {name for name in imports(path, for_types=True) if name.startswith("lwmfw_plugins")}


def test_every_file_of_the_core_has_its_layer():
    assert {path.stem for path in CORE} - {"__init__", "__main__"} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_in_the_core_point_one_way(name):
    above = {f"lwmfw.{other}" for other in LAYERS[LAYERS.index(name) + 1 :]}
    assert not imports(ROOT / "lwmfw" / f"{name}.py", for_types=False) & above


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.relative_to(ROOT / "plugins" / "lwmfw_plugins").as_posix())
def test_shipped_components_import_only_what_is_public(path):
    import lwmfw

    for name in imports(path, for_types=True):
        if name.startswith("lwmfw."):
            assert name.removeprefix("lwmfw.") in lwmfw.__all__, name


@pytest.mark.parametrize("path", [*CORE, *SHIPPED], ids=lambda p: p.name)
def test_no_file_is_too_long(path):
    assert path.read_text().count("\n") <= (200 if path.name == "loop.py" else 400)


LIGHT = {
    "help": ["--help"],
    "version": ["--version"],
    "recipes": ["recipes"],
    "compare": ["compare", *map(str, (ROOT / "docs" / "measured" / "fashion-mnist-mini").glob("lwm-*.json"))],
    "check": ["check", str(ROOT / "recipes" / "lwm.toml")],
    "show": ["show", str(ROOT / "recipes" / "lwm.toml")],
    "plugins": ["plugins", "L_AD"],
    "hooks": ["hooks"],
    "schema": ["schema"],
}


@pytest.mark.parametrize("verb", LIGHT)
def test_verbs_that_only_talk_do_not_import_torch(verb):
    code = (
        "import sys; sys.argv = ['lwmfw', *sys.argv[1:]]\n"
        "from lwmfw.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT[verb]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
