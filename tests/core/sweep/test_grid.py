"""What the cells of a sweep are, and what they are called."""

import pytest
from helpers.command import lwmfw

from lwmfw.errors import UserError
from lwmfw.sweep.grid import Grid, cells_of, parse_axes, parse_seeds
from lwmfw.testing import tiny_recipe

VALUES = {
    "scenario.increment=10,5,2": ["10", "5", "2"],
    "scenario.increment=[3,2,5]": ["[3,2,5]"],
    "scenario.increment=[3,2,5],5, [ 5, 5 ]": ["[3,2,5]", "5", "[ 5, 5 ]"],
    'scenario.order=["cat","dog"],["dog","cat"]': ['["cat","dog"]', '["dog","cat"]'],
    "data.use=synthetic,cifar10": ["synthetic", "cifar10"],
    'memory.budget=2000 exemplars,"20 per class"': ["2000 exemplars", '"20 per class"'],
    "data.root='a,b',c": ["'a,b'", "c"],
    'memory={budget="6 MB",replay=0.5},{}': ['{budget="6 MB",replay=0.5}', "{}"],
    "training.lr = 1e-1": ["1e-1"],
}


@pytest.mark.parametrize("text", VALUES)
def test_commas_outside_of_brackets_and_quotes_part_values(text):
    key = text.partition("=")[0].strip()
    assert parse_axes([text]) == {key: VALUES[text]}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["training.lr"], "--set training.lr: not KEY=VALUE"),
        (["training.lr=0.1,,0.2"], "--set training.lr: a value is left out between commas"),
        (["training.lr=0.1,"], "--set training.lr: a value is left out"),
        (["training.lr="], "--set training.lr: "),
        (["scenario.increment=[1,2"], r"--set scenario.increment: \[1,2 is not closed"),
        (["training.lr=0.1", "training.lr=0.2"], "--set training.lr: is given twice; write --set training.lr=VALUE,"),
    ],
)
def test_what_is_no_value_is_refused(texts, said):
    with pytest.raises(UserError, match=f"^{said}"):
        parse_axes(texts)


def test_seeds_are_different_whole_numbers():
    assert parse_seeds("1993, 2,0") == [1993, 2, 0]
    assert parse_seeds("") == []
    for wrong in ("1,1", "1,", "-1", "1.5", "a", "1-3", "9" * 5000):
        with pytest.raises(UserError, match="not different whole numbers; write --seeds 1,2,3"):
            parse_seeds(wrong)


def names(tmp_path, *texts, seeds="", recipes=None):
    found = recipes or [tiny_recipe({}, tmp_path)]
    return [cell.name for cell in cells_of(Grid(found, parse_axes(texts), parse_seeds(seeds)))]


def test_cells_are_every_combination_and_are_named_by_what_is_set(tmp_path):
    assert names(tmp_path) == ["s1"]
    assert names(tmp_path, "training.epochs=2", "scenario.increment=2,1", "training.lr=0.1,1e-2", seeds="1,2") == [
        f"epochs=2-increment={increment}-lr={lr}-s{seed}"
        for increment in (2, 1)
        for lr in ("0.1", "1e-2")
        for seed in (1, 2)
    ]
    assert set(names(tmp_path, "training.lr=0.1")) < set(names(tmp_path, "training.lr=0.1,0.2")), "a second value adds"
    assert names(tmp_path, "training.lr=0.1,0.2", "training.first.lr=0.1,0.2")[1] == "training.lr=0.1-first.lr=0.2-s1"


def test_a_seed_is_said_once(tmp_path):
    with pytest.raises(UserError, match=r"^--set seed: there are --seeds; leave one of them out$"):
        names(tmp_path, "seed=3", seeds="1,2")


def test_values_whose_letters_do_not_tell_them_apart_have_a_digest(tmp_path):
    assert names(tmp_path, "scenario.order=[0,1,2,3],[3,2,1,0]") == ["order=0-1-2-3-s1", "order=3-2-1-0-s1"]
    assert names(tmp_path, "name=x,X") == ["name=x-2d711642-s1", "name=x-4b68ab38-s1"]
    long = names(tmp_path, f"name={'a' * 50},{'a' * 51}")
    assert [name[: -len("01234567-s1")] for name in long] == [f"name={'a' * 40}-"] * 2
    assert len(set(long)) == 2


def test_recipes_of_several_names_stand_first(tmp_path):
    recipes = [tiny_recipe({"name": name}, tmp_path) for name in ("one", "two")]
    assert names(tmp_path, recipes=recipes, seeds="3") == ["one-s3", "two-s3"]


def test_one_run_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"lr=0.1-s1 and lr=1e-1-s1: are one run, or recipes of one name; leave one"):
        names(tmp_path, "training.lr=0.1,1e-1")
    with pytest.raises(UserError, match="threads=2-s1 and threads=4-s1: are one run"):
        names(tmp_path, "training.threads=2,4")  # compare would not tell them apart
    recipe = tiny_recipe({}, tmp_path)
    with pytest.raises(UserError, match=r"tiny-s1 and tiny-s1: are one run, or recipes of one name; leave one"):
        names(tmp_path, recipes=[recipe, recipe])


def test_threads_are_those_of_the_sweep_unless_the_recipe_states_its_own(tmp_path):
    def threads(*texts):
        grid = Grid([tiny_recipe({}, tmp_path)], parse_axes(texts), [], threads=3)
        return [cell.resolved.recipe.training.threads for cell in cells_of(grid)]

    assert threads() == [3]
    assert threads("training.threads=2") == [2]


@pytest.mark.parametrize("wrong", ["scenario.increment=2,0", "training.ephocs=2,3", "classifier.use=linear,linaer"])
def test_a_wrong_cell_is_named_before_any_starts(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr("lwmfw.sweep.jobs.start_here", None)
    done = lwmfw("sweep", tiny_recipe({}, tmp_path), "--set", wrong, "--seeds", "1,2", "--out", "made")
    key, _, values = wrong.partition("=")
    bad = values.split(",")["ephocs" not in key]
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"tiny.toml with {key.split('.')[1]}={bad}-s1: " in done.stderr
    assert not (tmp_path / "made").exists()


def test_the_only_cell_of_a_recipe_is_told_as_run_tells_it(tmp_path):
    done = lwmfw("sweep", "nothing")
    assert (done.returncode, done.stderr) == (2, lwmfw("run", "nothing").stderr)
