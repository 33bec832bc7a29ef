"""Runs that are interrupted."""

from unittest.mock import patch

import pytest

from lwmfw import Observer, hookimpl, loop
from lwmfw.errors import Interrupted
from lwmfw.testing import tiny_run

THREE_STEPS = {
    "data": {"use": "synthetic", "classes": 6, "train_per_class": 16, "test_per_class": 8},
    "scenario": {"first": 2, "increment": 2},
}


def interrupted(folder, recipe, after, observers=()):
    """A run that is interrupted at the start of the step behind `after`, resumed by running it again."""

    class Interrupting:
        armed = True

        def __init__(self, options):
            pass

        @hookimpl
        def before_step(self, step):
            if step.index == after + 1 and Interrupting.armed:
                Interrupting.armed = False
                raise KeyboardInterrupt

    components = [Observer("interrupting", Interrupting)]
    recipe = recipe | {"observers": [{"use": "interrupting"}, *observers]}
    with pytest.raises(Interrupted, match=f"{after or 'no'} finished steps? (is|are) kept") as error:
        tiny_run(recipe, folder, components=components)
    assert error.value.exit_code == 130
    assert not (folder / "run" / "DONE").exists()
    return tiny_run(recipe, folder, components=components)


def halted(folder, recipe, after=1):
    """A run that has ended behind a step, as Ctrl-C ends it; returns its directory."""

    def learn(run, step, old, _learn=loop.learn):
        if step.index > after:
            raise KeyboardInterrupt
        return _learn(run, step, old)

    folder.mkdir(exist_ok=True)
    with patch.object(loop, "learn", learn), pytest.raises(Interrupted):
        tiny_run(recipe, folder)
    return folder / "run"
