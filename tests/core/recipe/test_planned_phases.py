"""Phases are planned alike by check, plan and run, and what is wrong with a plan is found by check."""

import pytest
from helpers.command import lwmfw

from lwmfw.testing import tiny_recipe

FILE = """
from dataclasses import replace

from lwmfw import Data, Penalty, hookimpl
from lwmfw_plugins.data.synthetic import Synthetic, SyntheticOptions

class Planning:
    def __init__(self, options): pass
    @hookimpl
    def plan_phases(self, {arguments}): return {plan}

class Unknown(Synthetic):
    class_count = None
    def __init__(self, options):
        self.inner = Synthetic(options)
    def load(self): return self.inner.load()

@hookimpl
def register_components():
    yield Penalty("planning", Planning)
    yield Penalty("other", Planning)
    yield Data("unknown", Unknown, SyntheticOptions)
"""
BALANCED = "[replace(main, name='even', balanced=True)]"


def written(folder, plan, arguments="step, main", **tables):
    (folder / "plan.py").write_text(FILE.format(plan=plan, arguments=arguments))
    return tiny_recipe({"plugins": ["plan.py"], "penalties": [{"use": "planning"}], **tables}, folder)


def said(folder, *command):
    answer = lwmfw(*command, *(["--out", folder / "run"] if command[0] == "run" else []))
    assert not (folder / "run").exists() or answer.returncode == 0
    return answer


@pytest.mark.parametrize("command", [["check"], ["run"], ["run", "--dry-run"]])
@pytest.mark.parametrize("data", ["synthetic", "unknown"])
def test_a_balanced_phase_without_exemplars_is_refused_in_the_name_of_who_plans_it(command, data, tmp_path):
    data = {"use": data, "classes": 4, "train_per_class": 8, "test_per_class": 4, "size": 8}
    answer = said(tmp_path, *command, written(tmp_path, BALANCED, data=data))
    assert answer.returncode == 2
    assert answer.stderr.endswith(
        "plan.py: planning.plan_phases plans phase 'even' of balanced images, but the recipe keeps no exemplars; "
        "add [memory]\n"
    )
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("use", "owner"),
    [([{"use": "planning"}], "[training]"), ([{"use": "other"}, {"use": "planning"}], "other of plan.py")],
)
def test_two_phases_of_one_name_are_told_with_both_who_plan_them(use, owner, tmp_path):
    name = "main" if owner == "[training]" else "more"
    answer = said(tmp_path, "check", written(tmp_path, f"[replace(main, name='{name}')]", penalties=use))
    assert answer.returncode == 2
    said_in_full = f"plan.py: planning.plan_phases plans phase '{name}' in step 1, as {owner} does; name it apart\n"
    assert answer.stderr.endswith(said_in_full)
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "scenario", [{"first": 2, "increment": 2}, {"first": 2, "increment": [1, 1]}, {"first": 2, "classes": 4}]
)
def test_a_plan_is_asked_for_where_the_number_of_classes_is_not_known(scenario, tmp_path):
    data = {"use": "unknown", "classes": 4, "train_per_class": 8, "test_per_class": 4, "size": 8}
    recipe = written(tmp_path, "main if step.index == 2 else None", data=data, scenario=scenario)
    answer = said(tmp_path, "check", recipe)
    assert answer.returncode == 1
    assert "plan.py: planning.plan_phases returned Phase; return a list of Phase" in answer.stderr.splitlines()[-1]
    assert said(tmp_path, "check", written(tmp_path, "None", data=data, scenario=scenario)).returncode == 0


def test_no_random_numbers_are_offered_to_a_plan(tmp_path):
    answer = said(tmp_path, "check", written(tmp_path, "None", "main, rng"))
    assert answer.returncode == 2
    assert answer.stderr.endswith(
        "Planning.plan_phases asks for 'rng', which is not offered; offered: step, main, name\n"
    )
    page = lwmfw("hooks", "plan_phases").stdout
    assert "    name: the component's name in the recipe" in page
    assert "rng" not in page
    assert "    rng: a torch.Generator" in lwmfw("hooks", "group_parameters").stdout
    assert said(tmp_path, "check", written(tmp_path, "None", "step, main, name")).returncode == 0
