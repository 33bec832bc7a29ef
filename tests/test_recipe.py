"""What a recipe means: how its files and settings merge, and what is said of one that is wrong."""

import os
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from plugin_files import ANGLES, penalty_file

from lwmfw import Field, Options, Penalty, hookimpl
from lwmfw.assemble import assemble
from lwmfw.components import Backbone, Classifier, Data, Objective, Observer, Provider
from lwmfw.errors import UserError
from lwmfw.plugins import Catalogue, add_module, discover
from lwmfw.recipe import Recipe, Training, load_recipe
from lwmfw.source import MAX_EXTENDS, parse_settings
from lwmfw.testing import tiny_recipe

# made-up components: no message below changes when a method is added to those we ship


class PullOptions(Options):
    weight: float = Field(1.0, ge=0, description="factor of the term")
    layers: int = Field(3, ge=1, le=9, description="how many")


class PushOptions(Options):
    strength: float = Field(1.0, ge=0, description="factor of the term")


class WideOptions(Options):
    width: int = Field(16, ge=1, description="channels")


class Part:
    """Enough of a component of any kind."""

    class_count = 10
    offers = frozenset({"features"})

    def __init__(self, options):
        pass

    def load(self): ...
    def build(self, *given): ...
    def loss(self, logits, labels): ...


class Watching(Part):
    @hookimpl
    def compute_penalty(self, new):
        return None

    @hookimpl
    def before_run(self, run):
        pass


def shop(name="shop", version="1.2"):
    """A catalogue of one distribution that has a component or two of every kind."""
    return stocked(
        Catalogue(), Provider(name, version),
        Data("digits", Part), Backbone("flat", Part), Backbone("wide", Part, WideOptions), Classifier("linear", Part),
        Objective("plain", Part), Penalty("pull", Watching, PullOptions), Penalty("push", Watching, PushOptions),
        Observer("console", Watching),
    )  # fmt: skip


def stocked(catalogue, provider, *records):
    module = ModuleType(provider.name)
    module.register_components = hookimpl(lambda: records)
    add_module(catalogue, module, provider)
    return catalogue


RECIPE = """[data]
use = "digits"

[scenario]
first = 2
increment = 2

[backbone]
use = "flat"

[classifier]
use = "linear"

[objective]
use = "plain"

[training]
epochs = 1

[[penalties]]
use = "pull"
weight = 0.5
"""


def write(text, name="recipe.toml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(text, *sets, name="recipe.toml", catalogue=None):
    """The recipe after both stages of validation and the scenario's, as `lwmfw check` has it."""
    resolved = load_recipe(write(text, name), parse_settings(sets), catalogue=catalogue or shop())
    assemble(resolved)
    return resolved


def tables(text, *sets, **more):
    return load(text, *sets, **more).tables()


def refusal(text, *sets, **more):
    with pytest.raises(UserError) as refused:
        load(text, *sets, **more)
    return str(refused.value)


# --- extends -----------------------------------------------------------------------------------------------------


def test_a_recipe_keeps_of_its_base_what_it_does_not_state():
    write(RECIPE, "base.toml")
    merged = tables('extends = "base.toml"\n[training]\nlr = 0.5\n')
    assert merged["training"]["lr"] == 0.5
    assert merged["training"]["epochs"] == 1
    assert merged["penalties"] == [{"use": "pull", "as": "pull", "weight": 0.5, "layers": 3}]


def test_an_array_replaces_the_base_s():
    write(RECIPE, "base.toml")
    assert [p["use"] for p in tables('extends = "base.toml"\n[[penalties]]\nuse = "push"\n')["penalties"]] == ["push"]
    assert tables('extends = "base.toml"\npenalties = []\n')["penalties"] == []


def test_options_are_inherited_with_the_component_they_belong_to():
    write(RECIPE.replace('"flat"', '"wide"\nwidth = 4'), "base.toml")
    assert tables('extends = "base.toml"\n[backbone]\nuse = "wide"\n')["backbone"] == {"use": "wide", "width": 4}


def test_a_table_that_names_another_component_inherits_no_options():
    write(RECIPE.replace('"flat"', '"wide"\nwidth = 4'), "base.toml")
    assert tables('extends = "base.toml"\n[backbone]\nuse = "flat"\n')["backbone"] == {"use": "flat"}


def test_bases_may_extend_bases_in_folders_below():
    write(RECIPE, "deep/er/root.toml")
    write('extends = "er/root.toml"\nseed = 7\n', "deep/base.toml")
    merged = tables('extends = "deep/base.toml"\n[scenario]\nincrement = 4\n')
    assert (merged["seed"], merged["scenario"]["first"], merged["scenario"]["increment"]) == (7, 2, 4)


def test_a_chain_of_bases_has_an_end():
    for number in range(MAX_EXTENDS + 1):
        write(f'extends = "r{number + 1}.toml"\n', f"r{number}.toml")
    with pytest.raises(UserError, match=f"more than {MAX_EXTENDS} recipes extend one another; flatten them"):
        load_recipe("r0.toml")


def test_the_name_is_that_of_the_file_unless_stated():
    write('name = "base-name"\n' + RECIPE, "base.toml")
    assert tables(RECIPE, name="our new+recipe.toml")["name"] == "our-new+recipe"
    assert tables('extends = "base.toml"\n')["name"] == "base-name"


# --- --set -------------------------------------------------------------------------------------------------------


def test_set_reaches_any_key_by_its_dotted_name():
    changed = tables(RECIPE, "training.lr=0.5", "name=other", "scenario.order=[3,1,2,0]", "backbone.use=wide",
                     "backbone.width=8")  # fmt: skip
    assert (changed["training"]["lr"], changed["name"]) == (0.5, "other")
    assert changed["scenario"]["order"] == [3, 1, 2, 0]
    assert changed["backbone"] == {"use": "wide", "width": 8}


def test_set_reaches_a_penalty_by_its_name_in_the_recipe():
    twice = RECIPE + '[[penalties]]\nuse = "pull"\nas = "late"\n'
    weights = {p["as"]: p["weight"] for p in tables(twice, "penalties.late.weight=7")["penalties"]}
    assert weights == {"pull": 0.5, "late": 7}


def test_a_penalty_keeps_its_name_when_its_provider_is_named():
    named = RECIPE.replace('"pull"', '"shop/pull"')
    assert tables(named, "penalties.pull.weight=7")["penalties"][0]["weight"] == 7


def test_the_last_set_of_a_key_wins():
    assert tables(RECIPE, "training.epochs=5", "training.epochs=6")["training"]["epochs"] == 6


def test_set_training_wins_over_the_first_step_s_own():
    recipe = RECIPE + "[training.first]\nepochs = 9\nlr = 0.3\n"
    training = load(recipe, "training.epochs=5").recipe.training
    assert [(training.settings(step).epochs, training.settings(step).lr) for step in (1, 2)] == [(5, 0.3), (5, 0.1)]


def test_set_can_still_address_the_first_step():
    training = load(RECIPE, "training.epochs=5", "training.first.epochs=9").recipe.training
    assert [training.settings(step).epochs for step in (1, 2)] == [9, 5]


def test_the_first_step_is_trained_like_the_others_where_nothing_is_said():
    training = load(RECIPE + "[training.first]\nlr = 0.3\n").recipe.training
    assert (training.settings(1).epochs, training.settings(1).lr, training.settings(2).lr) == (1, 0.3, 0.1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("5.0", 5.0), ("1e-3", 1e-3), ("true", True), ("word", "word"), ("'two words'", "two words"),
     ("a/b.c-d", "a/b.c-d"), ("[1, 2]", [1, 2]), ("{use = 'pull'}", {"use": "pull"}), ("a=b", "a=b")],
)  # fmt: skip
def test_a_set_value_is_toml_and_a_bare_word_a_string(text, value):
    assert parse_settings([f"training.x={text}"]) == {"training.x": value}


SETTINGS = {
    "no value": ("training.epochs", "--set training.epochs: not KEY=VALUE; write --set training.epochs=5"),
    "no key": ("=5", "--set =5: not KEY=VALUE; write --set training.epochs=5"),
    "empty value": ("name=", "--set name: the value is not valid TOML; quote it"),
    "half a key": ("training.=5", "--set training.: not a dotted key; write --set training.epochs=5"),
    "open bracket": ("penalties=[", "--set penalties: the value is not valid TOML; quote it"),
    "below a value": (
        "training.epochs.x=1",
        "--set training.epochs.x: 'epochs' is no table; `lwmfw show` prints the keys",
    ),
    "below a default": ("seed.x=1", "--set seed.x: seed: input should be a valid integer, got {'x': 1}"),
    "unknown table": ("trainin.epochs=5", "--set trainin.epochs: trainin: no such option; did you mean 'training'?"),
    "unknown key": ("training.epoch=5", "--set training.epoch: training.epoch: no such option; did you mean 'epochs'?"),
    "wrong type": (
        "training.epochs=five",
        "--set training.epochs: training.epochs: input should be a valid integer, got 'five'",
    ),
    "inside a value": ("backbone={use='flet'}", "--set backbone: backbone.use: no backbone named 'flet'; "
                       "did you mean 'flat'? (known: flat, wide)"),
    "misspelled penalty": (
        "penalties.pul.weight=1",
        "--set penalties.pul.weight: penalties has no single component 'pul'; did you mean 'pull'?",
    ),
    "penalty without an option": (
        "penalties.pull=1",
        "--set penalties.pull: names a component; add the option to set, as in penalties.pull.weight",
    ),
    "component that is not listed": (
        "observers.console.colour=1",
        "--set observers.console.colour: observers has no single component 'console'; choose of none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_cannot_be_applied_is_refused_in_one_line(case):
    setting, message = SETTINGS[case]
    assert refusal(RECIPE, setting) == message


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
        "increment = 2",
        "increment = -2",
        "recipe.toml:6: scenario.increment: input should be greater than or equal to 0, got -2",
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
    "steps that do not come out": (
        "increment = 2",
        "increment = 3",
        "recipe.toml:6: scenario.increment: the 8 classes after the first 2 do not make whole steps of 3; "
        "choose of 1, 2, 4, 8, or use fewer classes",
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
        "recipe.toml:6: scenario.order: input should be 'seed' or a valid list, got 'sed'",
    ),
    "order of words": (
        "increment = 2",
        'order = [1, "2"]',
        "recipe.toml:6: scenario.order[1]: input should be a valid integer, got '2'",
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
increment = 2
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
        "recipe.toml:6: scenario.increment: the 7 classes after the first 3 do not make whole steps of 2; "
        "choose of 1, 7, or use fewer classes"
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
    assert refusal('extends = "base.toml"\n\ntraining.epochs = 0\n').startswith("recipe.toml:3: training.epochs: ")
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


# --- plug-in files -----------------------------------------------------------------------------------------------


ANGLED = {"plugins": ["angles.py"], "penalties": [{"use": "angles"}]}


def written(overrides, folder="."):
    """A recipe of shipped components, and the plug-in file of the penalty `angles` beside it."""
    write(ANGLES, f"{folder}/angles.py")
    return tiny_recipe(overrides, Path(folder))


def names(path):
    return [chosen.name for chosen in load_recipe(path).chosen]


def test_plugins_lie_beside_the_recipe_wherever_it_is_read_from(monkeypatch):
    recipe = written(ANGLED, "folder").absolute()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert "angles" in names(recipe)
    assert "angles" in names(os.path.relpath(recipe))


def test_plugins_of_a_base_lie_beside_the_base():
    base = written(ANGLED, "bases")
    assert "angles" in names(write(f'extends = "{base.as_posix()}"\n'))


def test_a_recipe_s_plugins_replace_the_base_s():
    base = written(ANGLED, "bases")
    with pytest.raises(UserError, match="no penalty named 'angles'"):
        load_recipe(write(f'extends = "{base.as_posix()}"\nplugins = []\n'))


def test_a_plugin_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"^angels\.py: no such plug-in file; plugins lists Python files"):
        load_recipe(written(ANGLED | {"plugins": ["angels.py"]}))


def test_a_plugin_changed_since_the_recipe_was_resolved_is_refused():
    resolved = write(load_recipe(written(ANGLED)).toml(), "resolved.toml")
    write(ANGLES + "# changed\n", "angles.py")
    with pytest.raises(UserError, match=r"^angles\.py: sha256 is \w{64}, the recipe says \w{64}; restore the file$"):
        load_recipe(resolved)


def test_arguments_add_to_the_recipe_s_plugins_and_take_the_place_of_its_seed():
    resolved = load_recipe(written({"penalties": [{"use": "angles"}]}), plugins=[Path("angles.py")], seed=5)
    assert (resolved.recipe.penalties[0].use, resolved.recipe.seed) == ("angles", 5)


# --- two providers of one name -----------------------------------------------------------------------------------


def clash():
    return stocked(shop(), Provider("mall", "2.0"), Penalty("pull", Watching, PushOptions))


def test_two_providers_of_one_name_are_both_named():
    assert refusal(RECIPE, catalogue=clash()) == (
        "recipe.toml:21: penalties[0].use: penalty 'pull' is provided by shop 1.2 and mall 2.0; "
        "write use = 'shop/pull' or 'mall/pull'"
    )


def test_naming_the_provider_settles_it():
    named = RECIPE.replace('"pull"\nweight', '"mall/pull"\nstrength')
    (penalty,) = tables(named, catalogue=clash())["penalties"]
    assert penalty == {"use": "mall/pull", "as": "pull", "strength": 0.5}


def test_both_can_be_used_under_two_names():
    both = RECIPE.replace('"pull"', '"shop/pull"') + '[[penalties]]\nuse = "mall/pull"\nas = "other"\n'
    assert [p["as"] for p in tables(both, catalogue=clash())["penalties"]] == ["pull", "other"]


def test_a_clash_that_the_recipe_does_not_touch_is_none():
    assert tables(RECIPE.replace('"pull"\nweight', '"push"\nstrength'), catalogue=clash())["penalties"]


def test_two_plugin_files_of_one_component_are_both_named(tmp_path):
    method = "@hookimpl\ndef compute_penalty(self, new): pass"
    for name in ("one.py", "two.py"):
        penalty_file(tmp_path, method, needs="()", name=name)
    files = {"plugins": ["one.py", "two.py"]}
    with pytest.raises(UserError, match=r"'probe' is provided by one\.py and two\.py; write use = 'one\.py/probe' or"):
        load_recipe(tiny_recipe(files | {"penalties": [{"use": "probe"}]}, tmp_path))
    assert "probe" in names(tiny_recipe(files | {"penalties": [{"use": "two.py/probe"}]}, tmp_path))


def test_a_provider_that_failed_to_load_is_quoted_only_when_a_name_is_not_found():
    catalogue = shop()
    catalogue.failures.append("broken 1.0 failed to load: ImportError: no module named gone")
    assert load(RECIPE, catalogue=catalogue)
    assert refusal(RECIPE.replace('"linear"', '"cosine"'), catalogue=catalogue).endswith(
        "(known: linear); note: broken 1.0 failed to load: ImportError: no module named gone"
    )


# --- the resolved recipe -----------------------------------------------------------------------------------------


def test_the_resolved_recipe_read_again_gives_the_same_tables():
    write(RECIPE + "[training.first]\nlr = 0.3\n", "base.toml")
    text = 'extends = "base.toml"\nobservers = []\n[backbone]\nuse = "shop/wide"\n[scenario]\norder = [4, 3, 2, 1]\n'
    resolved = load(text, "penalties.pull.weight=2", "training.epochs=3")
    again = load(resolved.toml(), name="resolved.toml")
    assert again.tables() == resolved.tables()
    assert again.toml() == resolved.toml()


def test_the_resolved_recipe_needs_no_base_and_knows_its_plugins_anywhere():
    base = written(ANGLED, "bases")
    resolved = load_recipe(write(f'extends = "{base.as_posix()}"\n'))
    again = load_recipe(write(resolved.toml(), "run/resolved.toml"))
    assert again.tables() == resolved.tables()


def test_the_resolved_recipe_writes_out_every_default():
    resolved = tomllib.loads(load(RECIPE).toml())
    assert set(resolved) == set(Recipe.model_fields)
    assert set(resolved["training"]) == set(Training.model_fields)
    assert resolved["penalties"] == [{"use": "pull", "as": "pull", "weight": 0.5, "layers": 3}]
