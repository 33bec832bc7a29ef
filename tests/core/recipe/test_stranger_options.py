"""Options of strangers: those that a recipe cannot keep are refused in words, and `lwmfw plugins` lists any."""

import json

import pytest
from helpers.command import lwmfw

from lwmfw.testing import tiny_recipe

HEAD = """
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import field_serializer, field_validator

from lwmfw import Field, Options, Penalty, hookimpl

class Mute:
    def __repr__(self): raise SystemExit(0)

def fails(*arguments): raise KeyError("none")

class Asking(type):
    @property
    def needs(cls): raise RuntimeError("no object")

class Mine:
    def __init__(self, options): pass
    @hookimpl
    def before_step(self): pass

class Other(Mine, metaclass=Asking):
    __doc__ = 5

class Speechless(type):
    @property
    def __doc__(cls): raise SystemExit(0)

class Third(Mine, metaclass=Speechless): pass

class Plain(Options):
    a: int = 1

class Mined(Options):
"""
TAIL = """

@hookimpl
def register_components():
    yield Penalty("mine", {factory}, Mined)
"""


def written(folder, body, table=(), factory="Mine"):
    """A recipe with a penalty of such options."""
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    (folder / "mine.py").write_text(HEAD + lines + TAIL.format(factory=factory))
    return tiny_recipe({"plugins": ["mine.py"], "penalties": [{"use": "mine", **dict(table)}]}, folder)


NOT_IN_TOML = {
    "a: set[int] = {1}": "its option 'a' is {1}, which TOML does not have",
    "a: Path = Path('x')": "its option 'a' is PosixPath('x'), which TOML does not have",
    "a: list[int | None] = [None]": "its option 'a' is [None], which TOML does not have",
    "a: dict[int, int] = {1: 2}": "its option 'a' is {1: 2}, which TOML does not have",
    "a: complex = 1j": "its option 'a' is 1j, which TOML does not have",
    "a: bytes = b'x'": "its option 'a' is b'x', which TOML does not have",
    "a: object = Mute()": "its option 'a' is a value of type Mute, which TOML does not have",
    "a: str = '\\ud800'": "its option 'a' is '\\ud800', which TOML does not have",
    "a: int = 10**5000": "its option 'a' is a value of type int, which TOML does not have",
    "a: tuple[int, ...] = (1, 2)": "its option 'a' is [1, 2], which is refused when it is read from a recipe again",
    "a: float = float('nan')": "its option 'a' is nan, which is refused when",
    "a: int = 'one'": "its option 'a' is 'one', which is refused when",
    "a: int = 1\n@field_validator('a')\ndef v(cls, x): return x + 1\nb: int = 1": (
        "its options are others when they are read from a recipe again"
    ),
    "a: int = 1\n@field_serializer('a')\ndef s(self, x): fails()": "its options cannot be written: ",
    "a: 'Undefined' = 1": "its options cannot be checked: PydanticUserError: ",
    "a: int = Field(default_factory=fails)": "its options cannot be checked: KeyError: 'none'; a validator raises Val",
}


@pytest.mark.parametrize("body", NOT_IN_TOML)
@pytest.mark.parametrize("verb", ["check", "show", "run"])
def test_options_that_a_recipe_cannot_keep_are_refused_before_a_directory_is_made(body, verb, tmp_path):
    recipe = written(tmp_path, body, {"a": 2} if "field_validator" in body else {})
    out = ["--out", tmp_path / "run"] if verb == "run" else []
    answer = lwmfw(verb, recipe, *out)
    assert answer.returncode == 2, answer.stderr
    assert not (tmp_path / "run").exists()
    assert "mine.py: mine: " + NOT_IN_TOML[body] in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert ";" in answer.stderr


@pytest.mark.parametrize("raised", ["KeyError('x')", "RuntimeError('a\\nb')", "SystemExit(0)", "TypeError()"])
def test_a_validator_may_raise_anything(raised, tmp_path):
    recipe = written(tmp_path, f"a: int = 1\n@field_validator('a')\ndef v(cls, x): raise {raised}", {"a": 2})
    answer = lwmfw("check", recipe)
    assert answer.returncode == 2
    what = raised.partition("(")[0]
    assert f"mine.py: mine: its options cannot be checked: {what}" in answer.stderr
    assert answer.stderr.endswith("; a validator raises ValueError\n")
    assert answer.stderr.count("\n") == 1


def test_a_validator_may_raise_only_when_options_are_read_again(tmp_path):
    body = "a: int = 1\n@field_validator('a')\ndef v(cls, x): fails()"
    answer = lwmfw("check", written(tmp_path, body))
    assert answer.returncode == 2
    assert "mine.py: mine: its options cannot be read from a recipe again: KeyError: 'none'; let opt" in answer.stderr


@pytest.mark.parametrize("annotation", ["Plain", "list[Plain]", "dict[str, Plain]"])
def test_a_slip_in_a_table_of_options_is_answered_with_the_keys_of_that_table(annotation, tmp_path):
    table = {"list[Plain]": [{"aa": 1}], "dict[str, Plain]": {"one": {"aa": 1}}}.get(annotation, {"aa": 1})
    answer = lwmfw("check", written(tmp_path, f"other: {annotation} = None", {"other": table}))
    assert answer.returncode == 2
    assert answer.stderr.endswith("no such option; did you mean 'a'?\n"), answer.stderr


def test_what_a_validator_says_on_two_lines_is_told_on_one(tmp_path):
    body = "a: int = 1\n@field_validator('a')\ndef v(cls, x): raise ValueError('input should\\nbe odd; add one')"
    answer = lwmfw("check", written(tmp_path, body, {"a": 2}))
    assert answer.stderr.endswith("mine.py): input should be odd, got 2; add one\n")
    assert answer.stderr.count("\n") == 1


def test_an_option_whose_key_is_no_python_name_is_kept_and_resumed_by_its_alias(tmp_path):
    recipe = written(tmp_path, "factor: float = Field(1.0, alias='lambda', description='of the term')", {"lambda": 2.0})
    assert "lambda = 2.0" in lwmfw("show", recipe).stdout
    assert lwmfw("run", recipe, "--out", tmp_path / "run").returncode == 0
    (tmp_path / "run" / "DONE").unlink()
    assert lwmfw("resume", tmp_path / "run").returncode == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]
    assert "lambda  number      1.0  of the term" in lwmfw("plugins", "mine", "--plugins", tmp_path / "mine.py").stdout


LISTED = {
    "a: list[int] = Field(default_factory=list, description='two\\nlines')": "a       array of integer  []       two l",
    "a: int = Field(default_factory=lambda data: fails())": "computed",
    "a: int = Field(default_factory=fails)": "computed",
    "a: object = Mute()": "a value of type Mute",
    "a: list = []": "list",
    "a: Annotated[int, [1]] = 1": "integer",
    "a: dict[str, list[int]] = {}": "dict",
    "a: 'Undefined' = 1": "Undefined",
    "a: Plain = Plain()": "Plain",
    "a: str = 'x\\ny'": '"x y"',
}


@pytest.mark.parametrize("body", LISTED)
@pytest.mark.parametrize(
    "factory", ["Mine", "Other", "Third", "partial(Mine)", "lambda options: Mine(options)", "print"]
)
def test_plugins_lists_whatever_a_stranger_registers(body, factory, tmp_path):
    written(tmp_path, body, factory=factory)
    for name in ([], ["mine"]):
        answer = lwmfw("plugins", *name, "--plugins", tmp_path / "mine.py")
        assert answer.returncode == 0, answer.stderr
        assert "mine" in answer.stdout
    assert LISTED[body] in answer.stdout
