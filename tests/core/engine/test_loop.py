"""The loop: hooks in their order, results as pure functions of the recipe, and going on after an interruption."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.plugin_files import ANGLES

import lwmfw
import lwmfw.loop
from lwmfw import Observer, Penalty, hookimpl
from lwmfw.hookspecs import RUN_HOOKS
from lwmfw.testing import tiny_recipe, tiny_run

LWM = {"penalties": [{"use": "L_D"}, {"use": "L_AD"}]}
THREE_STEPS = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
}


def comparable(path):
    """The results of a run without what a clock decides."""
    results = json.loads((path / "results.json").read_text())
    for step in results["steps"]:
        del step["train_seconds"], step["part_seconds"]
    return results


def epochs(path):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    return [value.clone() for value in run.run.model.state_dict().values()]


def same(ones, others):
    return all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))


def recorder(calls):
    """A component that implements every hook and notes each call."""

    class Recorder:
        def __init__(self, options):
            pass

        @hookimpl
        def before_run(self, run):
            calls.append("before_run")

        @hookimpl
        def before_step(self, step):
            calls.append(f"before_step {step.index}")

        @hookimpl
        def compute_penalty(self, step, batch):
            calls.append(f"compute_penalty {step.index} {len(batch.labels)}")

        @hookimpl
        def after_update(self, step):
            calls.append(f"after_update {step.index}")

        @hookimpl
        def after_epoch(self, step, epoch, means):
            calls.append(f"after_epoch {step.index} {epoch} {' '.join(means)}")

        @hookimpl
        def choose_data(self, step, data):
            calls.append(f"choose_data {step.index} {len(data)}")

        @hookimpl
        def plan_phases(self, step):
            calls.append(f"plan_phases {step.index}")

        @hookimpl
        def group_parameters(self, step, phase):
            calls.append(f"group_parameters {step.index} {phase.name}")

        @hookimpl
        def after_training(self, step, data):
            calls.append(f"after_training {step.index} {len(data)}")

        @hookimpl
        def before_memory(self, step, candidates):
            calls.append(f"before_memory {step.index} {len(candidates)}")

        @hookimpl
        def allocate_memory(self, step, budget, classes, cost):
            calls.append(f"allocate_memory {step.index} {budget.amount} {len(classes)} {cost:g}")

        @hookimpl
        def select_memory(self, step, candidates, quota):
            calls.append(f"select_memory {step.index} {len(candidates)} {sum(quota.values())}")

        @hookimpl
        def after_step(self, step, result):
            calls.append(f"after_step {step.index} of {result.seen}")

        @hookimpl
        def after_run(self, results):
            calls.append(f"after_run {results.complete}")

    return Recorder


def test_hooks_fire_in_the_stated_order(tmp_path):
    calls = []
    tiny_run(
        {
            "penalties": [{"use": "recorder"}],
            "objective": {"over": "seen"},
            "memory": {"budget": "8 exemplars", "select": {"use": "random"}},
            "training": {"epochs": 2, "batch_size": 20},
        },
        tmp_path,
        components=[Penalty("recorder", recorder(calls))],
    )
    images = {1: 32, 2: 32 + 8}
    epoch = {
        1: ["after_update 1"] * 2,
        2: ["compute_penalty 2 20", "after_update 2", "compute_penalty 2 20", "after_update 2"],
    }
    expected = [*["plan_phases 1", "plan_phases 2"] * 2, "before_run"]  # when it is checked, and when it is prepared
    for step in (1, 2):
        expected += [f"choose_data {step} {images[step]}", f"before_step {step}"]
        expected += [f"plan_phases {step}", f"group_parameters {step} main"]
        for number in (1, 2):
            expected += [*epoch[step], f"after_epoch {step} {number} bce"]
        expected += [f"after_training {step} {images[step]}"]
        expected += [f"before_memory {step} {images[step]}", f"allocate_memory {step} 8 {2 * step} 192"]
        expected += [f"select_memory {step} {images[step]} 8", f"after_step {step} of {2 * step}"]
    assert calls == [*expected, "after_run True"]


def test_after_run_is_called_after_an_exception(tmp_path):
    calls = []

    class Failing(recorder(calls)):
        @hookimpl
        def after_epoch(self):
            raise ValueError("stop")

    with pytest.raises(lwmfw.LwmfwError, match="stop"):
        tiny_run({"observers": [{"use": "failing"}]}, tmp_path, components=[Observer("failing", Failing)])
    assert calls[-1] == "after_run False"


def test_components_are_called_in_recipe_order(tmp_path):
    order = []

    def named(name):
        class Named:
            def __init__(self, options):
                pass

            @hookimpl
            def before_run(self):
                order.append(name)

            @hookimpl
            def compute_penalty(self):
                return None

        return Named

    components = [Penalty(name, named(name)) for name in "bac"]
    tiny_run({"penalties": [{"use": name} for name in "cab"]}, tmp_path, components=components)
    assert order == ["c", "a", "b"]


def test_only_penalties_that_say_so_have_terms_in_the_first_step(tmp_path):
    def constant(first):
        class Constant:
            acts_first = first

            def __init__(self, options):
                pass

            @hookimpl
            def compute_penalty(self):
                return {f"first {first}": torch.ones(())}

        return Constant

    components = [Penalty("early", constant(True)), Penalty("late", constant(False))]
    for order in (["early", "late"], ["late", "early"]):
        (tmp_path / order[0]).mkdir()
        penalties = [{"use": name} for name in order]
        run = tiny_run({"penalties": penalties}, tmp_path / order[0], components=components)
        assert list(run.terms[1]) == ["bce", "first True"]
        assert list(run.terms[2]) == ["bce", *(f"first {name == 'early'}" for name in order)]


def test_each_hook_is_called_in_exactly_one_place():
    core = Path(lwmfw.__file__).parent
    callers = ("loop.py", "memory/exemplars.py", "engine/build.py", "engine/run.py", "assembly/parts.py")
    called = [
        node.attr
        for path in callers
        for node in ast.walk(ast.parse((core / path).read_text()))
        if isinstance(node, ast.Attribute)
        if ast.unparse(node.value) in ("hook", "run.assembly.hook", "self.assembly.hook", "self.hook", "assembly.hook")
    ]
    named = re.findall(r'\.hook\("(\w+)"\)', "".join((core / path).read_text() for path in callers))
    assert [(called + named).count(hook) for hook in RUN_HOOKS] == [1] * len(RUN_HOOKS)


def test_the_same_recipe_and_seed_give_the_same_bits(tmp_path):
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(tiny_run(LWM, tmp_path / name))
    assert comparable(runs[0].path) == comparable(runs[1].path)
    assert same(weights(runs[0]), weights(runs[1]))
    (tmp_path / "other").mkdir()
    assert not same(weights(runs[0]), weights(tiny_run(LWM | {"seed": 2}, tmp_path / "other")))


def test_resolved_toml_run_again_gives_the_same_bits(tmp_path):
    (tmp_path / "angles.py").write_text(ANGLES)
    recipe = {"plugins": ["angles.py"], "penalties": [*LWM["penalties"], {"use": "angles"}], "training": {"epochs": 2}}
    first = tiny_run(recipe, tmp_path)
    (tmp_path / "angles.py").unlink()  # the run directory has its own copy
    lwmfw.run(first.path / "resolved.toml", out=tmp_path / "again", device="cpu")
    assert comparable(tmp_path / "again") == comparable(first.path)
    model = lwmfw.open_run(tmp_path / "again").model
    assert same(model.state_dict().values(), weights(first))
    assert (tmp_path / "again" / "resolved.toml").read_text() == (first.path / "resolved.toml").read_text()


def test_lwm_with_gamma_0_has_the_bits_of_lwf_mc(tmp_path):
    (tmp_path / "lwm").mkdir()
    (tmp_path / "lwf").mkdir()
    lwm = tiny_run({"penalties": [{"use": "L_D"}, {"use": "L_AD", "weight": 0.0}]}, tmp_path / "lwm")
    lwf = tiny_run({"penalties": [{"use": "L_D"}]}, tmp_path / "lwf")
    assert same(weights(lwm), weights(lwf))
    assert lwm.terms[2]["L_AD"] == 0


def test_installed_but_unnamed_plug_ins_change_nothing(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "crowded").mkdir()
    calls = []
    components = [kind("recorder", recorder(calls)) for kind in (Penalty, Observer)]
    plain = tiny_run(LWM, tmp_path / "plain")
    crowded = tiny_run(LWM, tmp_path / "crowded", components=components)
    assert comparable(plain.path) == comparable(crowded.path)
    assert same(weights(plain), weights(crowded))
    assert calls == []


def test_validation_takes_the_place_of_the_test_set(tmp_path):
    run = tiny_run({"evaluation": {"validation": 0.25}}, tmp_path)
    assert len(run.run.data.train) == 4 * 12
    assert sum(map(sum, run.results.steps[-1].confusion["cnn"])) == 4 * 4


def test_results_json_holds_what_the_contract_lists(tmp_path):
    run = tiny_run(LWM, tmp_path)
    results = json.loads((run.path / "results.json").read_text())
    assert list(results) == [
        "schema", "recipe", "seed", "classes_order", "class_names", "complete", "providers", "settings", "data",
        "steps",
        "average_incremental_accuracy", "last_accuracy", "forgetting", "first_step_forgetting",
        "backward_transfer", "new_class_accuracy", "task_aware_accuracy",
    ]  # fmt: skip
    first, last = results["steps"]
    assert list(last) == [
        "step", "new_classes", "seen", "accuracy", "accuracy_top5", "accuracy_by_step", "confusion", "parameters",
        "model_bytes", "exemplars", "memory_bytes", "train_seconds", "accuracy_task_aware", "readout_bytes",
        "readouts", "extra", "epochs", "part_seconds",
    ]  # fmt: skip
    assert results["complete"] is True
    assert results["classes_order"] == first["new_classes"] + last["new_classes"]
    assert results["providers"]["L_D"] == f"lwmfw {lwmfw.__version__}"
    confusion = last["confusion"]["cnn"]
    assert last["accuracy"]["cnn"] == sum(confusion[c][c] for c in range(4)) / 32
    assert last["accuracy_top5"]["cnn"] == 1.0  # k = min(5, seen)
    assert results["last_accuracy"] == last["accuracy"]
    mean = (first["accuracy"]["cnn"] + last["accuracy"]["cnn"]) / 2
    assert results["average_incremental_accuracy"]["cnn"] == pytest.approx(mean)
    drop = first["accuracy"]["cnn"] - last["accuracy_by_step"]["cnn"][0]
    assert results["forgetting"]["cnn"] == pytest.approx(drop)
    rows = epochs(run.path)
    assert [list(row) for row in rows] == [["step", "phase", "epoch", "terms", "lr", "images_per_s"]] * 2


def test_a_model_learns(tmp_path):
    run = tiny_run({"training": {"epochs": 12}, "data": {"noise": 0.1}}, tmp_path)
    assert run.results.steps[0].accuracy["cnn"] > 0.8


def test_bf16_trains_and_hands_hooks_float32(tmp_path):
    seen = set()

    class Looking:
        needs = frozenset({"old"})

        def __init__(self, options):
            pass

        @hookimpl
        def compute_penalty(self, new, old):
            seen.update({new.logits.dtype, new.features.dtype, old.logits.dtype, old.features.dtype})

    recipe = {"training": {"precision": "bf16"}, "penalties": [*LWM["penalties"], {"use": "looking"}]}
    run = tiny_run(recipe, tmp_path, components=[Penalty("looking", Looking)])
    assert seen == {torch.float32}
    assert run.results.complete


def test_a_tiny_recipe_is_written_as_it_is_meant(tmp_path):
    text = tiny_recipe({"seed": 3, "training": {"epochs": 2}}, tmp_path).read_text()
    assert "seed = 3" in text
    assert "epochs = 2" in text
    assert "batch_size = 16" in text
