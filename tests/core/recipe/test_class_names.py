"""`scenario.order` as a list of names: what they stand for, and what is refused before a run directory is made."""

import json
import tomllib

import pytest
from helpers.pictures import make_folder
from helpers.shop import RECIPE, Part, load, refusal, shop, stocked
from hypothesis import given
from hypothesis import strategies as st

import lwmfw
from lwmfw import UserError
from lwmfw.assembly.assemble import assemble
from lwmfw.components import Data, Provider
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.scenario import labels_of
from lwmfw.testing import tiny_recipe, tiny_run


def listed(order, **scenario):
    return {"scenario": {"first": 2, "increment": 2, "order": order, **scenario}}


@given(names=st.lists(st.text(), unique=True, min_size=1, max_size=20), draw=st.data())
def test_a_name_stands_for_its_label(names, draw):
    order = draw.draw(st.permutations(range(len(names))))
    assert labels_of([names[label] for label in order], names) == order
    assert labels_of(order, names) == order


def test_a_run_by_name_is_the_run_by_number(tmp_path):
    names = ["pattern 3", "pattern 0", "pattern 2", "pattern 1"]
    for folder in ("name", "number"):
        (tmp_path / folder).mkdir()
    by_name = tiny_run(listed(names), tmp_path / "name")
    by_number = tiny_run(listed([3, 0, 2, 1]), tmp_path / "number")
    assert by_name.results.classes_order == [3, 0, 2, 1]
    assert by_name.terms == by_number.terms
    resolved = tomllib.loads((by_name.path / "resolved.toml").read_text())
    assert resolved["scenario"]["order"] == names
    assert json.loads((by_name.path / "results.json").read_text())["classes_order"] == [3, 0, 2, 1]


# --- a data set that states its names ----------------------------------------------------------------------------


class Pets(Part):
    class_count = 4
    class_names = ("Cat", "Dog", "Crane", "Crane")


def pets():
    return stocked(shop(), Provider("zoo", "3"), Data("pets", Pets))


def of_pets(order):
    return RECIPE.replace('"digits"', '"pets"').replace("increment = 2", f"order = {order}")


def test_check_takes_the_names_that_the_data_set_states():
    assert load(of_pets('["Dog", "Cat"]'), catalogue=pets()).recipe.scenario.order == ["Dog", "Cat"]


REFUSED = {
    "misspelled": ('["Dog", "cta"]', "no class named 'cta'; did you mean 'Cat'?"),
    "unknown": ('["Dog", "xyz"]', "no class named 'xyz'; choose of Cat, Dog, Crane, Crane"),
    "shared": ('["Dog", "Crane"]', "'Crane' is the name of classes 2 and 3; list classes by number"),
    "twice": ('["Dog", "Dog"]', "a class stands twice; list each class at most once"),
    "mixed": (
        '["Dog", 1]',
        "input should be numbers alone or names alone, got ['Dog', 1]; write every class in the same way",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_refuses_a_wrong_name_and_says_where(case):
    order, words = REFUSED[case]
    assert refusal(of_pets(order), catalogue=pets()) == f"recipe.toml:6: scenario.order: {words}"


def test_classes_are_counted_before_their_names_are_known():
    unread = RECIPE.replace("increment = 2", 'increment = 2\norder = ["a", "b", "c"]')
    assert load(unread)
    assert refusal(unread.replace("first = 2", "first = 4")) == (
        "recipe.toml:5: scenario.first: 4 classes wanted, but there are 3; ask for fewer"
    )


@pytest.mark.parametrize("name", ["fashion-mnist-mini", "fashion-mnist"])
def test_the_classes_of_fashion_mnist_go_by_name(name, tmp_path):
    clothes = ["Bag", "T-shirt/top", "Ankle boot", "Coat"]
    recipe = tiny_recipe({"data": {"use": name}} | listed(clothes), tmp_path)
    assert assemble(load_recipe(recipe))
    wrong = load_recipe(recipe, {"scenario.order": ["t-shirt", "Bag"]})
    with pytest.raises(UserError, match=r"order: no class named 't-shirt'; did you mean 'T-shirt/top'\?$"):
        assemble(wrong)


# --- a folder, whose names are known once it is read -------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path):
    make_folder(tmp_path / "photographs", ("ant", "bee", "cat", "dog"))
    return {"use": "folder", "root": str(tmp_path / "photographs"), "size": 8, "decode": "once"}


def test_folders_are_learned_in_the_order_that_names_them(photographs, tmp_path):
    results = tiny_run({"data": photographs} | listed(["dog", "ant"], increment=0), tmp_path).results
    assert (results.classes_order, results.class_names) == ([3, 0], ["dog", "ant"])


def test_a_name_that_no_folder_has_is_refused_before_a_directory_is_made(photographs, tmp_path):
    recipe = tiny_recipe({"data": photographs} | listed(["dog", "ent"], increment=0), tmp_path)
    line = next(n for n, text in enumerate(recipe.read_text().splitlines(), 1) if text.startswith("order"))
    with pytest.raises(UserError) as refused:
        lwmfw.run(recipe, out=tmp_path / "run", device="cpu")
    assert str(refused.value) == f"{recipe}:{line}: scenario.order: no class named 'ent'; did you mean 'ant'?"
    assert not (tmp_path / "run").exists()
