"""What a recipe means: how its files and settings merge, and which components it names."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import tomli_w
from helpers.command import lwmfw
from helpers.plugin_files import ANGLES, penalty_file
from helpers.shop import RECIPE, PushOptions, Watching, load, refusal, shop, stocked, tables, write

from lwmfw import Penalty, run
from lwmfw.components import Provider
from lwmfw.errors import UserError
from lwmfw.recipe import shipped
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import parse_settings
from lwmfw.recipe.tables import Recipe, Training
from lwmfw.recipe.text import MAX_EXTENDS
from lwmfw.testing import tiny_recipe
from lwmfw.testing.tiny import TINY

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


def test_the_name_is_that_of_the_file_unless_stated_there():
    write('name = "base-name"\n' + RECIPE, "base.toml")
    assert tables(RECIPE, name="our new+recipe.toml")["name"] == "our-new+recipe"
    assert tables('extends = "base.toml"\n', name="mine.toml")["name"] == "mine", "another file is another recipe"
    assert tables('extends = "base.toml"\nname = "stated"\n')["name"] == "stated"


@pytest.mark.parametrize("name", ["lwm.toml", "lwm", "cifar100/b50/ucir.toml", "fashion-mnist-mini/finetune"])
def test_a_shipped_recipe_is_a_base_wherever_a_recipe_lies(name):
    shipped_base = load_recipe(shipped.find(name)).tables()
    ours = load_recipe(write(f'extends = "{name}"\nseed = 7\n', "somewhere/ours.toml")).tables()
    assert ours == shipped_base | {"name": "ours", "seed": 7}


@pytest.mark.parametrize("name", ["lwm.toml", "lwm"])
def test_a_file_beside_the_recipe_comes_before_a_shipped_one_and_the_recipe_itself_is_no_base(name):
    write(RECIPE, "lwm.toml")
    assert tables(f'extends = "{name}"\n')["backbone"]["use"] == "flat"
    own = write(f'extends = "{name}"\nseed = 7\n', "lwm.toml")
    assert load_recipe(own).recipe.backbone.use == "resnet20", "a variant of LwM may be called lwm.toml"


def test_check_tells_which_components_an_array_replaced():
    write('extends = "lwm.toml"\n[[penalties]]\nuse = "KD"\n', "mine.toml")
    assert lwmfw("check", "mine.toml").stdout == (
        "mine.toml:2: penalties: replaces L_D, L_AD of lwm.toml\nmine.toml: ok\n"
    )
    write('extends = "mine.toml"\nseed = 7\n', "above.toml")
    assert "mine.toml:2: penalties: replaces L_D, L_AD of lwm.toml\n" in lwmfw("check", "above.toml").stdout
    write('extends = "lwm.toml"\ntraining.milestones = [0.1]\nphases = []\n', "plain.toml")
    assert lwmfw("check", "plain.toml").stdout == "plain.toml: ok\n", "numbers are what one sees oneself set"
    said = lwmfw("check", "above.toml", "--set", "penalties=[]").stdout
    assert "--set penalties: replaces KD of mine.toml\n" in said


AMBIGUOUS = "shipped are cifar100/b50/ucir, fashion-mnist-mini/ucir, imagenet/ucir: name one of them"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ucir", AMBIGUOUS),
        ("ucir.toml", AMBIGUOUS),
        ("ucri", AMBIGUOUS),
        ("b50/ucir", "did you mean 'cifar100/b50/ucir'?"),
        ("recipes/lwm.toml", "did you mean 'lwm'?"),
        ("mine/ucir.toml", AMBIGUOUS),
        ("lmw", "did you mean 'lwm'?"),
        ("fashion-mnist-mini/lwf-mcc", "did you mean 'fashion-mnist-mini/lwf-mc'?"),
    ],
)
def test_a_name_near_those_of_shipped_recipes_is_answered_with_them(name, told):
    Path("ucir").mkdir()  # such as an earlier --out
    write(f'extends = "{name}"\n', "mine.toml")
    place = "mine.toml:1: extends: no file '" + name + "' beside the recipe"
    for verb, recipe, start in (("run", name, f"{name}: no such file"), ("check", "mine.toml", place)):
        done = lwmfw(verb, recipe)
        assert (done.returncode, done.stderr[: len(start)]) == (2, start)
        assert done.stderr.endswith(f"{told}\n")
    with pytest.raises(UserError, match=re.escape(told)):
        run(name)


def test_a_shipped_recipe_runs_by_name_beside_a_folder_of_that_name():
    Path("lwm").mkdir()
    assert lwmfw("check", "lwm").returncode == 0


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
    assert parse_settings([f"training.x={text}"])["training.x"].value == value


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
    "unknown key": ("training.epoch=5", "--set training.epoch: no such option; did you mean 'epochs'?"),
    "wrong type": (
        "training.epochs=five",
        "--set training.epochs: input should be a valid integer, got 'five'",
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


def test_plugins_of_a_recipe_and_its_bases_add_up():
    base = written(ANGLED, "bases")
    penalty_file(Path(), "def compute_penalty(self): ...")
    write(f'extends = "{base.as_posix()}"\nplugins = ["probe.py"]\n', "middle.toml")
    both = [str(Path(file).resolve()) for file in ("bases/angles.py", "probe.py")]
    for plugins in ("[]", '["probe.py"]'):
        files = load_recipe(write(f'extends = "middle.toml"\nplugins = {plugins}\n')).catalogue.files
        assert [str(file) for file in files] == both, "each once, and each beside the file that names it"


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
    assert set(resolved) == set(Recipe.model_fields) - {"memory", "origin"}  # left out, there is none
    assert set(resolved["training"]) == set(Training.model_fields)
    assert resolved["penalties"] == [{"use": "pull", "as": "pull", "weight": 0.5, "layers": 3}]


@pytest.mark.parametrize(
    ("stated", "observers"),
    [
        ({}, ["console"]),
        ({"observers": []}, []),
        ({"observers": [{"use": "attention-drift"}]}, ["attention-drift", "console"]),
        ({"observers": [{"use": "console"}, {"use": "attention-drift"}]}, ["console", "attention-drift"]),
        ({"observers": [{"use": "attention-drift"}], "console": False}, ["attention-drift"]),
        ({"console": False}, []),
        ({"observers": [{"use": "console"}], "console": False}, ["console"]),
        ({"observers": [{"use": "lwmfw/console"}]}, ["console"]),
        ({"observers": [{"use": "lwmfw/console", "as": "progress"}]}, ["progress"]),
    ],
)
def test_observers_are_added_to_the_console_unless_it_is_switched_off(stated, observers, tmp_path):
    tables = {key: value for key, value in TINY.items() if key not in ("observers", "console")} | stated
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(tables))
    resolved = load_recipe(tmp_path / "mine.toml")
    assert [chosen.name for chosen in resolved.chosen if chosen.component.kind == "observer"] == observers
    (tmp_path / "again.toml").write_text(resolved.toml())
    assert load_recipe(tmp_path / "again.toml").toml() == resolved.toml()


@pytest.mark.parametrize("console", [True, False])
def test_the_name_console_is_left_to_the_console(console, tmp_path):
    recipe = tiny_recipe({"observers": [{"use": "attention-drift", "as": "console"}], "console": console}, tmp_path)
    with pytest.raises(
        UserError, match=r"input should leave the name console to the console, got .*; write another as"
    ):
        load_recipe(recipe)
