"""docs/plugins.md: every example runs as it stands, and says what it is said to say when it is spoilt."""

import ast
import json
import re
import tomllib
from contextlib import chdir

import pytest
import tomli_w
import torch
from helpers import ROOT
from helpers.command import lwmfw

from lwmfw.authoring.new import read
from lwmfw.components import KINDS, TRAITS
from lwmfw.engine.run import FOR_PLUGINS
from lwmfw.recipe.catalogue import discover
from lwmfw.record import checkpoint

PAGE = (ROOT / "docs" / "plugins.md").read_text()


def blocks(label):
    """File -> the code block behind the comment that names it."""
    return dict(re.findall(rf"<!-- {label}: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


FILES, RECIPES, MESSAGES = blocks("file"), blocks("recipe"), blocks("wrong")
SPOILT = {
    "angles.py": ('{"old", "features"}', '{"features"}'),
    "medmnist.py": (".long()", ""),
    "conv3.py": ("Features(maps[-1].mean((2, 3)), maps[1:], raw_maps, maps[-1])", "maps[-1].mean((2, 3))"),
    "distance.py": ("def grow", "def extend"),
    "focal.py": ("* losses).mean()", "* losses)"),
    "retrain.py": ("name=name, epochs", "epochs"),
    "uncertain.py": ("[:count]", ""),
    "newest.py": ("int(total * share / sum(shares.values()))", "total * share / sum(shares.values())"),
    "posterise.py": ("(wrapper=True)", ""),
    "zlib_codec.py": (
        "return [zlib.compress(image.tobytes(), 9) for image in differences]",
        "return zlib.compress(differences.tobytes(), 9)",
    ),
    "medians.py": ("torch.stack(self.medians))\n", "torch.stack(self.medians)).argmax(1)\n"),
    "by_class.py": ("min(recall, key=recall.get)", "__import__('torch').zeros(1)"),
}
"""File -> what an author writes most often, in the place of what is right."""

BASE = {
    "seed": 1,
    "scenario": {"first": 2, "increment": 2},
    "training": {"epochs": 1, "batch_size": 16, "lr": 0.05, "precision": "fp32"},
}


def merged(tables, more):
    """Tables with those of another recipe merged in, key by key."""
    both = {key: merged(tables[key], more[key]) for key in tables.keys() & more.keys() if isinstance(more[key], dict)}
    return tables | more | both


def written(folder, spoilt=""):
    """Write every example, and one recipe that has all of their lines; one can be spoilt."""
    for name, code in FILES.items():
        assert not spoilt or code.count(SPOILT[name][0]) == 1
        (folder / name).write_text(code.replace(*SPOILT[name]) if name == spoilt else code)
    recipe = BASE
    for lines in RECIPES.values():
        recipe = merged(recipe, tomllib.loads(lines))
    del recipe["extends"]
    recipe["plugins"] = list(FILES)
    recipe["memory"] |= {"budget": "12 exemplars", "select": {"use": "uncertain"}}
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))


def record(name, folder):
    """The record that an example registers."""
    path = folder / name
    path.write_text(FILES[name])
    (component,) = discover([path], installed=False).components
    return component


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run directory of a run with all examples, from the command line."""
    folder = tmp_path_factory.mktemp("manual")
    written(folder)
    with chdir(folder):
        for command in (["check", "recipe.toml"], ["run", "recipe.toml", "--out", "run", "--device", "cpu"]):
            done = lwmfw(*command)
            assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def results(run):
    return json.loads((run / "results.json").read_text())


def test_the_page_is_not_longer_than_an_author_has_patience():
    assert PAGE.count("\n") <= 840


def test_there_is_an_example_of_every_kind(tmp_path):
    assert {record(name, tmp_path).kind for name in FILES} == {kind.kind for kind in KINDS}
    assert FILES.keys() == RECIPES.keys() == MESSAGES.keys() == SPOILT.keys()


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_and_imports_what_is_public(name):
    assert len([line for line in FILES[name].splitlines() if line.strip()]) <= 30
    assert max(map(len, FILES[name].splitlines())) <= 120
    tree = ast.walk(ast.parse(FILES[name]))
    modules = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    assert not [module for module in modules if module.startswith("lwmfw") and module != "lwmfw"]


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_what_a_package_begins_with(name, tmp_path):
    """`lwmfw plugin new` writes it; tests/core/authoring has it pass its tests."""
    kind = record(name, tmp_path).kind
    assert FILES[name] == read(kind, "component.py")
    assert RECIPES[name].endswith(read(kind, "lines.toml"))


@pytest.mark.parametrize("name", FILES)
def test_an_example_takes_part_in_a_run(name, results, tmp_path):
    assert re.fullmatch(rf"{name} sha256:\w{{64}}", results["providers"][record(name, tmp_path).name])


def test_what_the_examples_did_can_be_seen(run, results):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["phase"]) for row in rows] == [(1, "main"), (2, "main"), *[(2, "retrain")] * 5]
    assert rows[1]["terms"].keys() == {"focal", "angles"}
    assert rows[2]["terms"].keys() == {"focal"}
    assert [step["exemplars"] for step in results["steps"]] == [12, 10]  # 6 + 6, then 1 + 1 + 4 + 4
    lines = (run / "by-class.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 + 4
    assert results["class_names"] == [f"class {label}" for label in results["classes_order"]]
    assert all(step["extra"]["by-class"]["worst"] in results["class_names"] for step in results["steps"])
    kept = checkpoint.load(run / "checkpoints").components
    assert kept["by-class"] == {"lines": lines}
    assert kept["[memory]"]["labels"].bincount().tolist() == [1, 1, 4, 4]


def test_the_exemplars_are_posterised_and_compressed(run, results, tmp_path):
    memory = checkpoint.load(run / "checkpoints").components["[memory]"]
    codec = record("zlib_codec.py", tmp_path).factory(None)
    encoded = [each.numpy().tobytes() for each in memory["encoded"].split(memory["lengths"].tolist())]
    pixels = codec.decode(encoded, (3, 8, 8))
    assert torch.equal(pixels % 16, torch.full_like(pixels, 8))
    assert len(pixels.unique()) > 4
    assert results["steps"][1]["memory_bytes"] == len(memory["encoded"]) < pixels.numel()


@pytest.mark.parametrize("name", FILES)
def test_what_goes_wrong_most_often_is_told_as_the_page_quotes_it(name, tmp_path):
    written(tmp_path, spoilt=name)
    with chdir(tmp_path):
        told = lwmfw("run", "recipe.toml", "--out", "run", "--device", "cpu")
    assert told.returncode in (1, 2)
    assert told.stderr.splitlines()[-1].endswith(MESSAGES[name].strip())


def test_the_page_says_how_long_the_module_of_every_kind_is(tmp_path):
    rows = re.findall(r"^\| (\w+) \| 4 \| (\d+) \| \d+ \|$", PAGE, re.MULTILINE)
    modules = {record(name, tmp_path).kind: code for name, code in FILES.items()}
    lengths = {kind: len(list(filter(str.strip, modules[kind].splitlines()))) for kind in modules}
    assert {kind: int(lines) for kind, lines in rows} == lengths


def test_the_page_has_the_table_of_traits():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    known = [(t.name, ", ".join(t.kinds) or "all", t.type, t.meaning) for t in TRAITS.values()]
    assert rows == known


def test_the_page_lists_what_a_plug_in_may_ask_of_a_run():
    listed = re.search(r"<!-- run -->\n.*?:\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    assert re.findall(r"`(\w+)`", listed) == list(FOR_PLUGINS)


def test_the_examination_of_the_page_is_passed():
    code = re.search(r"<!-- examination -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(compile(FILES["angles.py"] + code, "plugins.md", "exec"), {})  # noqa: S102 - our own page


def test_every_link_of_the_page_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", PAGE)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
