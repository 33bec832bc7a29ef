"""What verbs print for programs: `--json` wherever the output is data, and nothing else on stdout."""

import json
import tomllib

import pytest
from helpers.command import lwmfw

from lwmfw.cli.verbs import VERBS
from lwmfw.hookspecs import SPECS
from lwmfw.recipe import shipped
from lwmfw.recipe.catalogue import discover
from lwmfw.testing import tiny_recipe

DATA = {
    *(
        "run",
        "resume",
        "search",
        "check",
        "show",
        "recipes",
        "plugins",
        "hooks",
        "predict",
        "export",
        "adopt",
        "extend",
    ),
    *("verify", "merge", "retract"),
}


def said(*arguments):
    """What a command prints, parsed."""
    done = lwmfw(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe({}, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def ran(recipe):
    """What a run has printed."""
    return said("run", recipe, "--out", recipe.parent / "run")


@pytest.mark.parametrize("verb", sorted(DATA))
def test_a_verb_whose_output_is_data_has_the_option(verb):
    assert verb in {each.__name__ for each in VERBS}
    assert "--json" in lwmfw(verb, "--help").stdout


def test_recipes_are_named_with_their_purpose_and_file():
    listed = said("recipes")
    assert {each["name"]: each["file"] for each in listed} == {n: str(path) for n, path in shipped.recipes().items()}
    assert said("recipes", "lwm") == [each for each in listed if each["name"] == "lwm"]
    assert listed[0]["purpose"] == shipped.purpose(shipped.recipes()[listed[0]["name"]])


def test_copied_recipes_are_paths(tmp_path):
    assert said("recipes", "lwm", "--copy", tmp_path)[0] == str(tmp_path / "lwm.toml")


def test_components_are_listed_and_told_in_full_with_their_options_as_a_schema():
    listed = said("plugins")
    assert {(each["kind"], each["name"]) for each in listed} == {(c.kind, c.name) for c in discover().components}
    (told,) = said("plugins", "L_AD")
    assert {key: told[key] for key in ("kind", "name", "from", "summary")} in listed
    assert told["options"]["properties"]["distance"]["enum"] == ["l1", "l2"]
    assert told["traits"]["needs"]
    assert "Grad-CAM" in told["about"]


def test_hooks_are_told_with_what_they_offer():
    assert [each["hook"] for each in said("hooks")] == list(SPECS)
    (told,) = said("hooks", "after_step")
    assert told["arguments"] == ["run", "step", "model", "data", "result"]
    assert told["besides"] == ["rng", "name"]
    assert told["manual"].startswith("after_step(run, step, model, data, result)\n\n")
    assert said("hooks", "register_components")[0]["besides"] == []


def test_a_recipe_is_checked_and_shown(recipe, tmp_path):
    assert said("check", recipe) == {"recipe": str(recipe), "ok": True, "replaced": []}
    (tmp_path / "own.toml").write_text('extends = "lwm.toml"\npenalties = []\n')
    (replaced,) = said("check", tmp_path / "own.toml")["replaced"]
    assert replaced["key"] == "penalties"
    assert replaced["place"] == f"{tmp_path / 'own.toml'}:2"
    assert "L_AD" in replaced["what"]
    assert said("show", recipe) == tomllib.loads(lwmfw("show", recipe).stdout)


def test_what_is_wrong_is_told_on_stderr_as_ever(recipe):
    for verb in ("check", "show", "run"):
        done = lwmfw(verb, recipe, "--set", "training.epoch=1", "--json")
        assert (done.returncode, done.stdout) == (2, "")
        assert "did you mean 'epochs'?" in done.stderr
    unknown = lwmfw("hooks", "after_stp", "--json")
    assert (unknown.returncode, unknown.stdout) == (2, "")


def test_a_run_prints_its_results_and_where_it_is(recipe, ran):
    assert ran.pop("run") == str(recipe.parent / "run")
    assert ran == json.loads((recipe.parent / "run" / "results.json").read_text())


def test_a_plan_is_a_list_of_phases(recipe):
    planned = said("run", recipe, "--dry-run")
    assert [(each["step"], each["phase"], each["epochs"]) for each in planned] == [(1, "main", 1), (2, "main", 1)]
    assert planned[0]["images"] == 32
    assert planned[0]["updates"] == 2
    assert planned[0]["new_classes"] == ["pattern 3", "pattern 0"]


@pytest.mark.slow
def test_a_search_prints_the_accepted_trial_of_each_step(tmp_path):
    searched = tiny_recipe({"penalties": [{"use": "L_D"}], "data": {"train_per_class": 32}}, tmp_path)
    found = said("search", searched, "--lr", "0.1", "--keep", "0.1", "--out", tmp_path / "search")
    assert [each["step"] for each in found] == [1, 2]
    assert found[1]["trade_offs"].keys() == {"penalties.L_D.weight"}
    assert 0 <= found[1]["accuracy_new"] <= 1
