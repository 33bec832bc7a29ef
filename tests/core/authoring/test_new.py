"""`lwmfw plugin new`: a name becomes a package that works."""

import ast
import importlib
import inspect
import sys
import tomllib
from contextlib import chdir
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import lwmfw

from lwmfw.authoring.new import TEMPLATES, class_of, read, render
from lwmfw.cli.author import Kind
from lwmfw.components import KINDS, Penalty
from lwmfw.recipe.catalogue import load_file

EVERY = [kind.kind for kind in KINDS]
EXAMPLES = {
    "data": "medmnist", "backbone": "conv3", "classifier": "distance", "objective": "focal", "penalty": "angles",
    "phase": "retrain", "readout": "medians", "selector": "uncertain", "rate": "newest", "refiner": "posterise",
    "codec": "zlib", "observer": "by-class",
}  # fmt: skip
"""Kind -> the component of the manual."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a package of every kind, named after it."""
    folder = tmp_path_factory.mktemp("packages")
    with chdir(folder):
        for kind in EVERY:
            done = lwmfw("plugin", "new", f"My.{kind}", "--kind", kind, "--out", kind)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def importable(packages, monkeypatch):
    """Kind -> its package on the path, as an installed one is; afterwards it is unknown again."""

    def made(kind):
        monkeypatch.syspath_prepend(packages / kind)
        monkeypatch.setitem(sys.modules, f"lwmfw_my_{kind}", None)  # and is taken out again
        del sys.modules[f"lwmfw_my_{kind}"]
        return importlib.import_module(f"lwmfw_my_{kind}")

    return made


def test_there_is_a_template_of_every_kind_and_the_command_line_offers_them():
    assert sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir()) == sorted(EVERY)
    assert list(Kind) == EVERY


@pytest.mark.parametrize("kind", EVERY)
def test_a_package_passes_its_own_tests(kind, packages, importable, tmp_path):
    importable(kind)
    test = load_file(packages / kind / "tests" / f"test_my_{kind}.py")
    found = [value for name, value in vars(test).items() if name.startswith("test_")]
    assert len(found) >= 2
    for function in found:
        function(*[tmp_path for _ in inspect.signature(function).parameters])


@pytest.mark.parametrize("kind", EVERY)
def test_its_recipe_would_run_as_a_file_without_being_installed(kind, packages):
    folder = packages / kind
    checked = lwmfw("check", folder / "recipe.toml", "--plugins", folder / f"lwmfw_my_{kind}.py")
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, f"{folder / 'recipe.toml'}: ok")


@pytest.mark.parametrize("kind", EVERY)
def test_it_says_the_name_wherever_it_is_named_and_nowhere_that_of_the_example(kind, packages, importable):
    (record,) = importable(kind).register_components()
    assert (record.kind, record.name) == (kind, f"My.{kind}")
    assert record.factory.__name__ == f"My{kind.capitalize()}"
    files = [path for path in (packages / kind).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sorted(path.relative_to(packages / kind).as_posix() for path in files) == [
        ".gitignore", "README.md", f"lwmfw_my_{kind}.py", "pyproject.toml", "recipe.toml", f"tests/test_my_{kind}.py",
    ]  # fmt: skip
    assert not [path for path in files if f'"{EXAMPLES[kind]}"' in path.read_text() or "$" in path.read_text()]
    project = tomllib.loads((packages / kind / "pyproject.toml").read_text())
    assert project["project"]["name"] == f"lwmfw-my-{kind}"
    assert project["project"]["entry-points"] == {"lwmfw": {f"My.{kind}": f"lwmfw_my_{kind}"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"] == {"only-include": [f"lwmfw_my_{kind}.py"]}


@pytest.mark.parametrize("kind", EVERY)
def test_under_its_own_name_the_example_is_as_it_stands(kind):
    files = render(EXAMPLES[kind], kind)
    module = EXAMPLES[kind].replace("-", "_")
    assert files[f"lwmfw_{module}.py"] == read(kind, "component.py")
    assert files[f"tests/test_{module}.py"] == read(kind, "test.py")


def test_the_example_package_is_what_is_written_for_the_penalty_of_the_manual():
    folder = ROOT / "plugins" / "example"
    for path, text in render("angles", "penalty").items():
        if path != ".gitignore":  # that of the checkout
            assert (folder / path).read_text() == text, path


def test_it_is_written_in_the_folder_of_its_name_and_says_what_to_do_next():
    done = lwmfw("plugin", "new", "margin", "--kind", "penalty")
    assert done.returncode == 0
    assert Path("lwmfw-margin/lwmfw_margin.py").is_file()
    assert done.stdout.partition("next:\n")[2].splitlines() == [
        "  pip install -e 'lwmfw-margin[test]'",
        "  pytest lwmfw-margin",
        "  lwmfw plugins margin",
        "  lwmfw run lwmfw-margin/recipe.toml",
    ]


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    done = lwmfw("plugin", "new", "margin", "--kind", "penalty", "--out", tmp_path / "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path / 'mine' / 'README.md'}: exists; choose another folder with --out\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    (tmp_path / "mine" / "README.md").unlink()
    (tmp_path / "mine" / "recipe.toml").symlink_to(tmp_path / "elsewhere")
    assert lwmfw("plugin", "new", "margin", "--kind", "penalty", "--out", tmp_path / "mine").returncode == 2
    assert not (tmp_path / "elsewhere").exists()


def test_where_not_all_can_be_written_nothing_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tests").write_text("a file where a folder is to be")
    for out in (tmp_path / "mine", tmp_path / "mine" / "tests" / "below"):
        done = lwmfw("plugin", "new", "margin", "--kind", "penalty", "--out", out)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert f"{out}: cannot be written to: " in done.stderr
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["tests"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("L_D", "'L_D' is a penalty of lwmfw 0.1.0; recipes could not tell which is meant: take another name"),
        ("l_d", "'l_d' is a penalty of lwmfw 0.1.0; "),
        ("plugins", "'plugins' would be the module lwmfw_plugins, which is installed; take another name"),
        ("con", "'con' names no folder on every system; take another name"),
        ("LPT1.x", "'LPT1.x' names no folder on every system; "),
        ("lwmfw-margin", "has in it what the package is called by itself; write what stands behind 'lwmfw-'"),
        *[(name, "names no package; take up to 60 letters, digits") for name in (
            "", " ", ".", "..", "../up", "a/b", "a\\b", "-a", "a-", "a.", "1st", "two words", "a+b", 'a"b', "a\nb", "é",
            "a\x1b[2J", "$name", "{name}", "a" * 61, "＿",
        )],
    ],
)  # fmt: skip
def test_a_name_that_would_not_do_is_refused_before_anything_is_written(name, told):
    done = lwmfw("plugin", "new", "--kind", "penalty", "--", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert not list(Path.cwd().iterdir())


def test_a_name_is_free_where_another_kind_has_it():
    assert lwmfw("plugin", "new", "L_D", "--kind", "observer").returncode == 0


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", ["none", "test", "options", "images", "head", "echo", "torch", "record", "objective"])
def test_whatever_it_is_called_the_class_is_no_other(kind, name):
    files = render(name, kind)
    for path in (f"lwmfw_{name}.py", f"tests/test_{name}.py"):
        tree = ast.walk(ast.parse(files[path]))
        named = [node.name for node in tree if isinstance(node, ast.ClassDef | ast.alias)]
        assert len(set(named)) == len(named)
        assert not [each for each in named if each.startswith("Test")]


def test_a_class_of_two_words():
    assert class_of("soft-margin_2", Penalty, "") == "SoftMargin2"


def test_a_kind_there_is_not_is_refused_with_those_there_are():
    done = lwmfw("plugin", "new", "margin", "--kind", "loss")
    assert done.returncode == 2
    assert "penalty" in done.stderr
    assert not list(Path.cwd().iterdir())
