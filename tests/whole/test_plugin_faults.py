"""Faults of plug-ins: every hook of a run, and what can go wrong in it. Told in one line that names provider, plug-in,
hook and place, with exit 1 (2 before anything runs); the run goes on when the plug-in is mended."""

import re
import shutil
import time
from types import SimpleNamespace

import pytest
from helpers.strangers import KIND, Flatten, recipe_with, with_hook

from lwmfw import Selection
from lwmfw.components import Provider
from lwmfw.errors import LwmfwError
from lwmfw.hookspecs import RUN_HOOKS, SPECS
from lwmfw.testing import tiny_run


def raises(**_):
    raise ValueError("boom")


def leaves(**_):
    raise SystemExit(0)


def calls_itself(**more):
    return calls_itself(**more)


def yields(**_):
    return (n for n in range(2))


def deletes_checkpoints(run, **_):
    shutil.rmtree(run.directory.path / "checkpoints", ignore_errors=True)


def deletes_everything(run, **_):
    shutil.rmtree(run.directory.path)


def changes_recipe(run, **_):
    run.recipe.training.lr = 7.0


def changes_pixels(data=None, candidates=None, batch=None, **_):
    (batch.images if batch else (candidates if data is None else data).pixels).zero_()


def changes_labels(data=None, candidates=None, batch=None, **_):
    (batch or (candidates if data is None else data)).labels.zero_()


def sleeps(**_):
    time.sleep(0.001)


def usual(quota=None, candidates=None, classes=None, new=None, **_):
    """What the hook would answer otherwise."""
    if quota is not None:
        return Selection({c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()})
    if classes is not None:
        return dict.fromkeys(classes, 2)
    return {"term": new.logits.mean()} if new is not None else None


IN_PLACE = "changed (data|candidates|batch).(pixels|images|labels) in place, which others are given too; change a copy"
FAULTS = {  # what goes wrong -> what the hook has to offer for it, and what is said
    raises: ((), r"faults.py:\d+: \w+.{hook} raised ValueError: boom"),
    leaves: ((), r"faults.py:\d+: \w+.{hook} raised SystemExit: 0"),
    calls_itself: ((), r"faults.py:\d+: \w+.{hook} raised RecursionError: maximum recursion depth exceeded"),
    yields: ((), "stranger.{hook} returned generator; "),
    changes_recipe: (("run",), r"faults.py:\d+: \w+.{hook} raised ValidationError: .* Instance is frozen"),
    changes_pixels: (("data", "batch", "candidates"), f"stranger.{{hook}} {IN_PLACE}"),
    changes_labels: (("data", "batch", "candidates"), f"stranger.{{hook}} {IN_PLACE}"),
    deletes_checkpoints: (("run",), ""),
    deletes_everything: (("run",), None),
    sleeps: ((), ""),
}
KINDS = {"plan_phases": "phase", "allocate_memory": "rate", "select_memory": "selector"}
FAST = {(raises, hook) for hook in ("before_run", "compute_penalty", "after_step")} | {
    (changes_pixels, "before_step"), (changes_labels, "compute_penalty"), (deletes_everything, "after_epoch"),
}  # fmt: skip
CASES = [
    pytest.param(fault, hook, id=f"{hook} {fault.__name__}", marks=[] if (fault, hook) in FAST else pytest.mark.slow)
    for fault, (offers, _) in FAULTS.items()
    for hook in RUN_HOOKS
    if (not offers or set(offers) & set(SPECS[hook])) and (fault, hook) != (deletes_everything, "after_run")
]


@pytest.mark.parametrize(("fault", "hook"), CASES)
def test_a_fault_is_told_and_the_run_goes_on_when_it_is_mended(fault, hook, tmp_path):
    state = SimpleNamespace(armed=True)

    def answer(**offered):
        index = offered["step"].index if "step" in offered else 2
        returned = fault(**offered) if state.armed and index == 2 else None
        return usual(**offered) if returned is None else returned

    kind = KINDS.get(hook, "penalty")
    stranger = with_hook(hook, answer)
    stranger.__module__ = __name__  # it is at home where `answer` is
    stranger.record = KIND[kind]("stranger", stranger, KIND[kind].required_options, provider=Provider("shop", "1"))
    components = [stranger.record, KIND["backbone"]("flat", Flatten)]
    said = FAULTS[fault][1]

    def run():
        return tiny_run(recipe_with(kind), tmp_path, components=components)

    if said == "":
        assert run().results.complete
        return
    with pytest.raises(LwmfwError) as error:
        run()
    told = str(error.value)
    assert error.value.exit_code == 1
    assert "\n" not in told
    if said:
        assert re.match(f"shop 1: .*{said.format(hook=hook)}", told)
    else:
        assert str(tmp_path / "run") in told  # whose doing it was cannot be known
        shutil.rmtree(tmp_path / "run", ignore_errors=True)  # what is left is no run
    state.armed = False
    ended = (tmp_path / "run" / "DONE").exists()
    assert ended == (hook == "after_run" and bool(said))
    assert ended or run().results.complete
