"""What is said of a wrong recipe: where, what is wrong, what to do."""

from pathlib import Path

import pytest
from helpers.shop import RECIPE, refusal, shop, write

from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.tables import Recipe, Training

# --- messages ----------------------------------------------------------------------------------------------------

PULL = "(pull, from shop 1.2)"
MESSAGES = {
    # name: (text of RECIPE, what stands in its place, the error)
    "unknown table": (
        "[[penalties]]",
        "[[penaltys]]",
        "recipe.toml:20: penaltys: no such option; did you mean 'penalties'?",
    ),
    "nothing like it": (
        "[[penalties]]",
        "[[zzz]]",
        f"recipe.toml:20: zzz: no such option; choose of {', '.join(Recipe.model_fields)}",
    ),
    "missing table": ('[classifier]\nuse = "linear"', "", "recipe.toml: classifier: is missing; add it"),
    "missing use": ('use = "linear"', "", "recipe.toml:11: classifier.use: is missing; add it"),
    "missing key": ("first = 2", "", "recipe.toml:4: scenario.first: is missing; add it"),
    "a word for a table": (
        '[data]\nuse = "digits"',
        'data = "digits"',
        "recipe.toml:1: data: input should be a table, got 'digits'; write [data]",
    ),
    "a table for an array": (
        "[[penalties]]",
        "[penalties]",
        "recipe.toml:20: penalties: input should be a valid list, got {'use': 'pull', 'weight': 0.5}; "
        "write [[penalties]]",
    ),
    "unknown key": (
        "increment",
        "incremnt",
        "recipe.toml:6: scenario.incremnt: no such option; did you mean 'increment'?",
    ),
    "no key like it": (
        "epochs",
        "zzz",
        f"recipe.toml:18: training.zzz: no such option; choose of {', '.join(Training.model_fields)}",
    ),
    "a dash in a key": (
        "epochs",
        "batch-size",
        "recipe.toml:18: training.batch-size: no such option; did you mean 'batch_size'?",
    ),
    "a space in a key": (
        "epochs",
        '"batch size"',
        "recipe.toml:18: training.batch size: no such option; did you mean 'batch_size'?",
    ),
    "unknown key of step 1": (
        "epochs = 1",
        "[training.first]\nlrr = 0.1",
        "recipe.toml:19: training.first.lrr: no such option; did you mean 'lr'?",
    ),
    "unknown option": (
        "weight",
        "wieght",
        f"recipe.toml:22: penalties[0].wieght {PULL}: no such option; did you mean 'weight'?",
    ),
    "option of another penalty": (
        "weight",
        "strength",
        f"recipe.toml:22: penalties[0].strength {PULL}: no such option; choose of weight, layers",
    ),
    "wrong type": (
        "epochs = 1",
        'epochs = "1"',
        "recipe.toml:18: training.epochs: input should be a valid integer, got '1'",
    ),
    "wrong type of an option": (
        "weight = 0.5",
        "layers = 0.5",
        f"recipe.toml:22: penalties[0].layers {PULL}: input should be a valid integer, got 0.5",
    ),
    "negative": (
        "first = 2",
        "first = -2",
        "recipe.toml:5: scenario.first: input should be greater than or equal to 0, got -2",
    ),
    "negative option": (
        "0.5",
        "-0.5",
        f"recipe.toml:22: penalties[0].weight {PULL}: input should be greater than or equal to 0, got -0.5",
    ),
    "infinite": (
        "0.5",
        "inf",
        f"recipe.toml:22: penalties[0].weight {PULL}: input should be a finite number, got inf",
    ),
    "no number": (
        "epochs = 1",
        "lr = nan",
        "recipe.toml:18: training.lr: input should be a finite number, got nan",
    ),
    "unknown component": (
        '"linear"',
        '"linaer"',
        "recipe.toml:12: classifier.use: no classifier named 'linaer'; did you mean 'linear'? (known: linear)",
    ),
    "no component like it": (
        '"linear"',
        '"zzz"',
        "recipe.toml:12: classifier.use: no classifier named 'zzz'; choose one (known: linear)",
    ),
    "component of another kind": (
        '"pull"',
        '"linear"',
        "recipe.toml:21: penalties[0].use: no penalty named 'linear'; 'linear' is a classifier, "
        "it belongs into [classifier] (known: pull, push)",
    ),
    "penalty for a backbone": (
        '"flat"',
        '"pull"',
        "recipe.toml:9: backbone.use: no backbone named 'pull'; 'pull' is a penalty, "
        "it belongs into [[penalties]] (known: flat, wide)",
    ),
    "objective for a penalty": (
        '"pull"',
        '"plain"',
        "recipe.toml:21: penalties[0].use: no penalty named 'plain'; 'plain' is an objective, "
        "it belongs into [objective] (known: pull, push)",
    ),
    "unknown provider": (
        '"pull"',
        '"shpo/pull"',
        "recipe.toml:21: penalties[0].use: no penalty named 'shpo/pull'; did you mean 'shop/pull'? (known: pull, push)",
    ),
    "second of one name": (
        "weight = 0.5",
        '[[penalties]]\nuse = "pull"',
        "recipe.toml:22: penalties[1]: a second 'pull'; give it another name with as = \"...\"",
    ),
    "too many first classes": (
        "first = 2",
        "first = 11",
        "recipe.toml:5: scenario.first: 11 classes wanted, but there are 10; ask for fewer",
    ),
    "too many classes": (
        "first = 2",
        "first = 2\nclasses = 12",
        "recipe.toml:6: scenario.classes: 12 wanted, but there are 10; ask for fewer",
    ),
    "unknown order": (
        "increment = 2",
        'order = "sed"',
        "recipe.toml:6: scenario.order: no order named 'sed'; did you mean 'seed'? (known: seed, given)",
    ),
    "order of numbers and words": (
        "increment = 2",
        'order = [1, "2"]',
        "recipe.toml:6: scenario.order: input should be numbers alone or names alone, got [1, '2']; "
        "write every class in the same way",
    ),
    "order of fractions": (
        "increment = 2",
        "order = [1, 2.5]",
        "recipe.toml:6: scenario.order[1]: input should be a valid integer or a valid string, got 2.5",
    ),
    "order beyond the classes": (
        "increment = 2",
        "order = [3, 10]",
        "recipe.toml:6: scenario.order: 10 is no class; list each of 0..9 at most once",
    ),
    "order with a class twice": (
        "increment = 2",
        "order = [3, 4, 3]",
        "recipe.toml:6: scenario.order: a class stands twice; list each of 0..9 at most once",
    ),
    "no TOML": ("epochs = 1", "epochs = ", "recipe.toml:18: not valid TOML: invalid value; correct the line"),
    "misspelled base": (
        "[data]",
        'extends = "bsae.toml"\n[data]',
        "recipe.toml:1: extends: no file 'bsae.toml' beside the recipe; did you mean 'base.toml'?",
    ),
    "base that is nearly shipped": (
        "[data]",
        'extends = "fashion-mnist-mini/finetun.toml"\n[data]',
        "recipe.toml:1: extends: no file 'fashion-mnist-mini/finetun.toml' beside the recipe; "
        "did you mean 'fashion-mnist-mini/finetune'?",
    ),
    "unknown base": (
        "[data]",
        'extends = "xyz"\n[data]',
        "recipe.toml:1: extends: no file 'xyz' beside the recipe; write it there, or name a shipped one",
    ),
    "base that is no name": (
        "[data]",
        "extends = 3\n[data]",
        'recipe.toml:1: extends: should be a file name, got 3; write extends = "base.toml"',
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_an_error_says_where_it_is_what_is_wrong_and_what_to_do(case):
    old, new, message = MESSAGES[case]
    write(RECIPE, "base.toml")
    assert refusal(RECIPE.replace(old, new)) == message


def test_the_shipped_penalties_answer_in_the_same_form():
    catalogue = discover()
    recipe = """
[data]
use = "fashion-mnist-mini"
[scenario]
first = 3
increment = 0
[backbone]
use = "resnet20"
[classifier]
use = "linear"
[objective]
use = "bce"
[training]
[[penalties]]
use = "L_D"
{}
"""
    provider = catalogue.find("penalty", "L_D").provider
    assert refusal(recipe.format("wieght = 1.0"), catalogue=catalogue) == (
        f"recipe.toml:16: penalties[0].wieght (L_D, from {provider}): no such option; did you mean 'weight'?"
    )
    assert refusal(recipe.format(""), catalogue=catalogue) == (
        "recipe.toml:6: scenario.increment: 0 leaves no step for the 7 classes after the first 3; say how many come at "
        "a time, or use fewer classes"
    )


ABOVE = {
    "comments": "# [a]\n# b = 1\n",
    "an array over lines": "plugins = [\n]\n",
    "arrays within arrays": "[scenario]\norder = [\n  [3],\n]\n",
    "a string over lines": 'name = """\n[data]\nlrr = 3\n"""\n',
    "a literal over lines": "name = '''\n[data]\nlrr = 3\n'''\n",
    "quotes in a comment": 'seed = 3 # """\n',
    "quotes in a string": "name = \"'''\"\n",
    "other ends of line": "# one\u2028two\x85three\n",
    "carriage returns": "seed = 3\r\nname = 'a'\r\n",
    "keys in quotes": '"seed" = 3\n',
    "inline tables": "data = { use = 'digits' }\n",
    "another table of that name": "[data]\nlrr = 3\n",
}


@pytest.mark.parametrize("above", ABOVE)
def test_an_error_names_its_line_whatever_stands_above_it(above):
    text = ABOVE[above] + "[training]\nlrr = 1\n"
    Path("recipe.toml").write_bytes(text.encode())  # as it stands, carriage returns too
    line = text.count("\n")
    with pytest.raises(UserError, match=rf"(?m)^recipe\.toml:{line}: training\.lrr: no such option"):
        load_recipe("recipe.toml", catalogue=shop())


def test_an_error_below_an_array_of_arrays_names_its_line():
    wrong = RECIPE.replace("first = 2", "order = [\n  [3],\n  [4]\n]\nfirst = 'x'")
    assert "recipe.toml:9: scenario.first: input should be a valid integer, got 'x'" in refusal(wrong).splitlines()


def test_an_error_in_a_base_names_the_base():
    write(RECIPE.replace("epochs", "epoch"), "base.toml")
    assert refusal('extends = "base.toml"\n').startswith("base.toml:18: training.epoch: no such option")


def test_an_error_in_what_replaced_the_base_names_the_recipe():
    write(RECIPE, "base.toml")
    assert refusal('extends = "base.toml"\n\ntraining.epochs = -1\n').startswith("recipe.toml:3: training.epochs: ")
    replaced = 'extends = "base.toml"\npenalties = [{ use = "pull", wieght = 1 }]\n'
    assert refusal(replaced).startswith("recipe.toml:2: penalties[0].wieght ")


def test_the_tables_are_reported_all_at_once_and_before_any_component():
    wrong = RECIPE.replace("epochs = 1", 'epoch = "1"').replace("first = 2", "first = -2").replace('"linear"', '"lin"')
    wrong += '[[penalties]]\nuse = "pull"\n[training.first]\nlrr = 1\n'
    assert {line.partition(": ")[2].partition(":")[0] for line in refusal(wrong).splitlines()} == {
        "training.epoch", "scenario.first", "penalties[1]", "training.first.lrr",
    }  # fmt: skip


def test_components_and_their_options_are_reported_all_at_once():
    wrong = RECIPE.replace('"linear"', '"lin"').replace("weight = 0.5", "wieght = 1\nlayers = 0").replace("flat", "flt")
    assert [line.partition(": ")[2].partition(" ")[0] for line in refusal(wrong).splitlines()] == [
        "backbone.use:", "classifier.use:", "penalties[0].layers", "penalties[0].wieght",
    ]  # fmt: skip
