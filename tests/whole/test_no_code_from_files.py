"""No file that is read can run code: what could is in one place, or of our own making."""

import ast

import pytest
from helpers import ROOT

FILES = sorted([*(ROOT / "lwmfw").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
FILES = [path for path in FILES if "tests" not in path.relative_to(ROOT).parts]
UNSAFE = {
    "pickle": {"load", "loads", "Unpickler"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "dill": {"load", "loads"},
    "cloudpickle": {"load", "loads"},
    "joblib": {"load"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load"},
    "torch": {"load"},
    "torch.jit": {"load"},
    "torch.hub": {"load", "load_state_dict_from_url"},
    "torch.package": {"PackageImporter"},
    "numpy": {"load"},
    "pandas": {"read_pickle"},
    "os": {"system", "popen"},
    "subprocess": set(),
}
BUILT_IN = {"eval", "exec", "compile", "__import__"}

ALLOWED = {
    # what a codec is crosses to our own workers as bytes of this process, and comes back from nowhere else
    ("lwmfw/data/workers.py", "pickle.loads"),
    ("lwmfw/testing/checks.py", "pickle.loads"),
    # the one reader of torch's files, with weights_only
    ("lwmfw/model/weights.py", "torch.load"),
    # what an author begins with, without pickle
    ("lwmfw/authoring/templates/data/component.py", "numpy.load"),
}


def calls(tree):
    """Names of what a file calls, modules in front, whatever they were imported as; and the calls."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names if alias.asname}
            known |= {alias.name.partition(".")[0]: alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = ast.unparse(node.func).partition(".")
            yield ".".join(filter(None, (known.get(head, head), rest))), node


def unsafe(name):
    module, _, function = name.rpartition(".")
    return (not module and function in BUILT_IN) or function in UNSAFE.get(module, ())


def found(source):
    return {name for name, _ in calls(ast.parse(source)) if unsafe(name)}


def test_what_is_looked_for_is_found():
    assert found("import pickle as p\np.loads(b'')") == {"pickle.loads"}
    assert found("from torch import load as read\nread('x')") == {"torch.load"}
    assert found("import torch.jit\ntorch.jit.load('x')") == {"torch.jit.load"}
    assert found("eval('1'); model.eval(); re.compile('a'); tree.compile()") == {"eval"}


def test_no_other_file_reads_what_could_run():
    seen = {(path.relative_to(ROOT).as_posix(), name) for path in FILES for name in found(path.read_text())}
    assert seen == ALLOWED


def test_an_author_begins_with_arrays_that_are_read_without_pickle():
    tree = ast.parse((ROOT / "lwmfw" / "authoring" / "templates" / "data" / "component.py").read_text())
    (call,) = [node for name, node in calls(tree) if name == "numpy.load"]
    assert {key.arg: ast.unparse(key.value) for key in call.keywords} == {"allow_pickle": "False"}


def test_torch_reads_weights_only_in_one_function():
    tree = ast.parse((ROOT / "lwmfw" / "model" / "weights.py").read_text())
    (function,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and "torch.load(" in ast.unparse(node)
    ]
    (call,) = [node for name, node in calls(tree) if name == "torch.load"]
    assert function.name == "read_checkpoint"
    assert {key.arg: ast.unparse(key.value) for key in call.keywords}["weights_only"] == "True"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_asks_a_network(path):
    """Sets that can be had are named with what gets them; fetching them is a person's choice."""
    names = {name.partition(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}
    assert not names & {"requests", "urllib", "http", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib"}


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
