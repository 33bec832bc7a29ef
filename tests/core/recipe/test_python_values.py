"""Values of Python where a recipe is set from it: what becomes plain, what is refused, and devices."""

import datetime
import enum
from array import array
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.market import given, refused
from helpers.plugin_files import ANGLES
from helpers.shop import write

import lwmfw as api
from lwmfw.engine.build import choose_device
from lwmfw.errors import UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import plain
from lwmfw.showing.picture import plot
from lwmfw.showing.report import report
from lwmfw.testing import tiny_recipe


class Word(str, enum.Enum):  # noqa: UP042 - what people write
    WIDE = "wide"


PLAIN = {
    "path": (Path("a/b"), "a/b"),
    "integer of numpy": (np.int64(3), 3),
    "float of numpy": (np.float64(0.05), 0.05),
    "half of a float": (np.float32(0.5), 0.5),
    "truth of numpy": (np.bool_(True), True),
    "word of numpy": (np.str_("x"), "x"),
    "day of numpy": (np.datetime64("2024-01-31"), datetime.date(2024, 1, 31)),
    "array": (np.array([3, 2]), [3, 2]),
    "array of arrays": (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
    "array of one": (np.array(3), 3),
    "array of objects": (np.array([Path("a"), 1], dtype=object), ["a", 1]),
    "tensor": (torch.tensor([1, 2]), [1, 2]),
    "tensor with a gradient": (torch.tensor(0.5, requires_grad=True), 0.5),
    "array of Python": (array("d", [0.5]), [0.5]),
    "tuple": ((1, (2, np.int8(3))), [1, [2, 3]]),
    "range": (range(3), [0, 1, 2]),
    "list of numbers of numpy": ([np.int64(1), np.float64(2)], [1, 2.0]),
    "mapping": (MappingProxyType({"a": (Path("b"),)}), {"a": ["b"]}),
    "enum": (Word.WIDE, "wide"),
    "integer enum": (enum.IntEnum("N", "one").one, 1),
    "date": (datetime.date(2024, 1, 31), datetime.date(2024, 1, 31)),
}


def types(value):
    """A value's types, down to the last."""
    if isinstance(value, dict):
        return {key: types(inner) for key, inner in value.items()}
    return [type(value), *map(types, value)] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("case", PLAIN)
def test_a_value_of_python_becomes_one_of_a_recipe(case):
    value, wanted = PLAIN[case]
    found = plain("x", value)
    assert (found, types(found)) == (wanted, types(wanted))


class Sly:
    def tolist(self):
        raise RuntimeError("not today")


class Endless:
    def tolist(self):
        return [Endless()]


ITSELF: list[Any] = []
ITSELF.append(ITSELF)

NOT_PLAIN = {
    "none": (None, "--set a.b: a value of type NoneType cannot"),
    "bytes": (b"x", "--set a.b: a value of type bytes cannot"),
    "complex": (1j, "--set a.b: a value of type complex cannot"),
    "set": ({1}, "--set a.b: a value of type set cannot"),
    "function": (print, "--set a.b: a value of type builtin_function_or_method cannot"),
    "within": ({"c": [1, object()]}, "--set a.b.c[1]: a value of type object cannot"),
    "time span": (np.timedelta64(1, "s"), "--set a.b: a value of type timedelta cannot"),
    "class": (np.float64, "--set a.b: its tolist() fails: "),
    "failing": (Sly(), "--set a.b: its tolist() fails: RuntimeError: not today; give plain values"),
    "endless": (Endless(), "--set a.b[0]"),
    "itself": (ITSELF, "--set a.b[0]: nested more than 32 deep; flatten it"),
    "number as a key": ({1: 2}, "--set a.b: a key should be a string, got 1; quote it"),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_any_other_value_is_refused_with_its_key_and_type(case):
    value, message = NOT_PLAIN[case]
    said = refused({"a.b": value})
    assert said.startswith(message)
    assert said.isprintable()


def test_what_are_no_settings_are_refused():
    assert refused(["training.epochs=5"]) == (
        "--set: should be a table, got ['training.epochs=5']; write set={\"training.epochs\": 5}"
    )
    assert refused({5: 1}) == "--set 5: not a dotted key; write --set training.epochs=5"


def test_seed_is_any_integer():
    assert given({}, seed=np.int64(5))["seed"] == given({"seed": np.uint8(5)})["seed"] == 5
    assert refused({}, seed="5") == "--seed: seed: input should be a valid integer, got '5'"
    assert refused({}, seed={5}).startswith("--seed: a value of type set cannot")


@pytest.mark.parametrize("given", ["angles.py", Path("angles.py"), ["angles.py"], (Path("angles.py"),)])
def test_plugins_are_files_or_one(given):
    write(ANGLES, "angles.py")
    recipe = tiny_recipe({"penalties": [{"use": "angles"}]}, Path())
    assert "angles" in [chosen.name for chosen in load_recipe(recipe, plugins=given).chosen]


def test_what_is_no_path_is_refused():
    assert refused({}, plugins=[5]) == "--plugins: should be a path, got 5; give a string or a Path"
    for name, place in (("out", "--out"), ("from_run", "--from")):
        with pytest.raises(UserError, match=f"^{place}: should be a path, got 5; give a string or a Path$"):
            api.run("recipe.toml", **{name: 5})
    for call in (api.run, api.open_run):
        with pytest.raises(UserError, match=r"should be a path, got 5; give a string or a Path$"):
            call(5)


def test_a_path_that_no_file_can_have_is_refused():
    for call in (api.run, api.open_run, api.resume):
        with pytest.raises(UserError, match=r"^(recipe|run): 'a\\x00b' has a NUL, which no path has; give another$"):
            call("a\0b")
    with pytest.raises(UserError, match=r"^--out: 'a\\x00b' has a NUL"):
        api.run(tiny_recipe({}, Path()), out="a\0b")
    with pytest.raises(UserError, match=r"^--out: '\\ud800' has half a letter, which no path has; give another$"):
        api.run(tiny_recipe({}, Path()), out="\ud800")


@pytest.mark.parametrize("path", ["a\0", "\ud800"])
def test_a_page_and_a_picture_have_no_such_place_either(path):
    with pytest.raises(UserError, match=r"^run: .* which no path has; give another$"):
        report(path)
    for draw in (lambda: report("run", out=path), lambda: plot([], Path(f"{path}.svg"), "accuracy", "")):
        with pytest.raises(UserError, match=r"^--out: .* which no path has; give another$"):
            draw()


@pytest.mark.parametrize("run", [None, 3, ["r1"]])
def test_a_report_is_of_paths(run):
    with pytest.raises(UserError, match=r"^run: should be a path, got |^run: .*; give a"):
        report(run)


# --- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "mps", "CPU", "", None, torch.device("cpu")])
def test_a_device_of_another_name_is_refused(name):
    with pytest.raises(UserError, match=r"^--device: should be auto, cpu or cuda, got .*; write one of them$"):
        choose_device(name)


def test_a_numbered_card_is_refused_with_how_to_choose_it():
    with pytest.raises(UserError, match=r"got 'cuda:1'; write cuda, and set CUDA_VISIBLE_DEVICES=1 before the start$"):
        api.run(tiny_recipe({}, Path()), device="cuda:1", out="run")
    assert not Path("run").exists()
