"""console: what is told of a run, on terminals of any width, in plain lines, and while nothing is trained."""

import json
import re
import time

import pytest
import torch
from helpers import inside
from helpers.command import lwmfw
from rich.progress import Progress

from lwmfw import Observer, hookimpl
from lwmfw.cli.log import logged
from lwmfw.errors import Interrupted
from lwmfw.testing import tiny_recipe, tiny_run
from lwmfw_plugins.observers import console
from lwmfw_plugins.observers._line import fitted

CONSOLE = {"observers": [{"use": "console"}]}
FORMS = [
    ("step 10/10  balanced  epoch 120/160", "1:02:03 left"),
    ("10/10  balanced  120/160", "1:02:03 left"),
    ("10/10  120/160", "1:02:03"),
]
MORE = ["350 images/s", "bce 0.4764", "L_AD 0.3238"]
MEMORY = {"memory": {"budget": "2 per class", "select": {"use": "herding"}}}


@pytest.mark.parametrize(
    ("width", "head", "tail"),
    [
        (140, FORMS[0][0], "1:02:03 left  350 images/s  bce 0.4764  L_AD 0.3238"),
        (80, FORMS[0][0], "1:02:03 left  350 images/s"),
        (60, FORMS[0][0], "1:02:03 left"),
        (50, FORMS[1][0], "1:02:03 left"),
        (40, FORMS[2][0], "1:02:03"),
    ],
)
def test_terms_go_before_the_time_and_words_before_the_bar(width, head, tail):
    before, bar, behind = fitted(width, FORMS, MORE)
    assert (before, behind) == (head, tail)
    assert bar >= 6
    assert len(before) + 1 + bar + 1 + len(behind) <= width


def test_no_width_is_too_small():
    for width in range(1, 40):
        head, bar, tail = fitted(width, FORMS, MORE)
        assert (head, tail) == FORMS[2]
        assert bar >= 1


class Shown(list):
    """Lines, and `done`: updates."""

    def __init__(self):
        super().__init__()
        self.done = []


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns; gives the lines that it is told to show, and how far the bar is."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    shown, update = Shown(), Progress.update

    def watched(self, task, **fields):
        if "description" in fields:
            shown.append(f"{fields['description']} | {fields['numbers']}")
        shown.done += [fields["completed"]] if "completed" in fields else []
        update(self, task, **fields)

    monkeypatch.setattr(Progress, "update", watched)
    return shown


def clock(monkeypatch, seconds):
    """Every look at the clock finds it so many seconds later."""
    now = [0.0]

    def look():
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(time, "perf_counter", look)


def test_the_first_epoch_has_time_images_a_second_and_terms(terminal, monkeypatch):
    clock(monkeypatch, 3)
    tiny_run(CONSOLE | {"scenario": {"first": 0, "increment": 0}})
    within = [line for line in terminal if line.startswith("step 1/1  main  epoch 1/1")]
    assert within[0].endswith("| "), "nothing is known yet"
    assert re.fullmatch(r"step 1/1  main  epoch 1/1 \| \d+:\d\d left  \d images/s  bce [0-9.]+", within[1])


TWICE = CONSOLE | {"training": {"epochs": 2, "batch_size": 8}}  # 4 updates an epoch, 5 with exemplars
BALANCED = TWICE | MEMORY | {"phases": [{"use": "balanced", "epochs": 3}]}  # 1 update an epoch


@pytest.mark.parametrize(
    ("recipe", "stage", "updates", "place", "told", "bar"),
    [
        (TWICE, 0, 6, "main  epoch 2/2  batch 3", ["main  epoch 2/2"], [7, 8]),
        (BALANCED, 1, 2, "balanced  epoch 2/3", ["balanced  epoch 2/3", "balanced  epoch 3/3"], [12, 13]),
    ],
)
def test_a_run_that_goes_on_inside_a_step_tells_the_epochs_that_are_recorded(
    recipe, stage, updates, place, told, bar, tmp_path, terminal, monkeypatch, caplog
):
    caplog.set_level("INFO", "lwmfw")
    with monkeypatch.context() as patch:
        inside.die_at(patch, 2, stage, updates)
        with pytest.raises(Interrupted):
            inside.run(recipe, tmp_path, updates=updates)
    caplog.clear()
    terminal.done.clear()
    clock(monkeypatch, 3)
    path = inside.run(recipe, tmp_path, updates=updates).directory.path
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()][-len(told) :]
    lines = [line for line in caplog.messages if line.startswith("resumed") or "epoch" in line]
    assert lines[:2] == ["resumed after step 1", f"goes on inside step 2/2  {place}"]
    expected = [f"step 2/2  {epoch}  bce {row['terms']['bce']:.4g}" for epoch, row in zip(told, rows, strict=True)]
    assert [line[: len(start)] for line, start in zip(lines[2:], expected, strict=True)] == expected
    assert lines[-1].endswith("  0:00 left")
    assert list(dict.fromkeys(terminal.done)) == bar


def test_a_look_at_the_terms_waits_for_the_device_and_so_is_rare(terminal, monkeypatch):
    looks, read = [], torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda value: looks.append(value) or read(value))
    tiny_run(CONSOLE)
    assert not looks, "of batches that take no seconds"
    clock(monkeypatch, 3)
    tiny_run(CONSOLE | {"training": {"epochs": 1, "batch_size": 1}})
    assert 0 < len(looks) <= 32


def test_what_takes_time_and_is_no_training_shows_as_such(terminal):
    tables = {"readouts": [{"use": "cnn"}, {"use": "nme"}], "phases": [{"use": "balanced", "epochs": 1}]}
    tiny_run(CONSOLE | MEMORY | tables)
    told = [line.removesuffix(" | ") for line in terminal if line.startswith("step 2/2  ") and "main" not in line]
    stages = [line for line in dict.fromkeys(told) if "balanced" not in line]
    assert stages == [
        *("step 2/2  choosing exemplars", "step 2/2  fitting read-outs", "step 2/2  choosing exemplars, evaluating")
    ]
    terminal.clear()
    tiny_run(CONSOLE)
    assert "step 1/2  evaluating | " in terminal


def test_images_a_second_are_those_of_the_phase():
    found = []

    class Watch:
        """Keeps what after_epoch is told."""

        def __init__(self, options):
            pass

        @hookimpl
        def after_epoch(self, run, rate, images_per_s):
            found.append((run.position.phase, rate, images_per_s))

    slow = {"observers": [{"use": "watch"}], "phases": [{"use": "balanced", "epochs": 1, "lr": 0.025}]}
    tiny_run(MEMORY | slow, components=[Observer("watch", Watch)])
    assert [(phase, rate) for phase, rate, _ in found] == [("main", 0.1), ("main", 0.1), ("balanced", 0.025)]
    assert all(pace > 0 for *_, pace in found)


def test_the_pace_of_a_balanced_phase_leaves_out_what_its_images_waited_for(capfd, monkeypatch):
    run = console.ConsoleObserver(None)
    seen = tiny_run(MEMORY | {"phases": [{"use": "balanced", "epochs": 1}]}).run
    step = seen.steps[1]
    run.before_step(seen, step)
    main, balanced = seen.phases(step)
    run.group_parameters(main)
    run.epoch_began -= 1000  # as if exemplars were chosen meanwhile
    run.group_parameters(balanced)
    seen.position.epoch, seen.position.batch = 1, 1
    run.after_update(step, next(iter(batches())), {})
    run.after_epoch(step, 1, {"bce": 1.0}, 12.0)
    assert "step 2/2  balanced  epoch 1/1  bce 1  12 images/s  0:0" in capfd.readouterr().err


def batches():
    from lwmfw import Batch

    yield Batch(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.bool))


def test_a_long_epoch_without_a_terminal_is_told_of_within(capfd, monkeypatch):
    clock(monkeypatch, 40)
    tiny_run(CONSOLE | {"training": {"epochs": 1, "batch_size": 4}})
    assert re.search(
        r"step 1/2  main  epoch 1/1  batch \d  bce [0-9.]+  \d images/s  \d+:\d\d left\n", capfd.readouterr().err
    )


def test_a_log_has_the_same_in_plain_lines_with_times_and_how_it_ended(tmp_path):
    recipe = tiny_recipe(CONSOLE, tmp_path)
    assert lwmfw("run", recipe, "--out", "run", "--log", "run.log").returncode == 0
    first = (tmp_path / "run.log").read_text()
    accuracy = json.loads((tmp_path / "run" / "results.json").read_text())["last_accuracy"]["cnn"]
    assert first.endswith(f" run: finished, cnn {accuracy:.3f}\n")
    assert lwmfw("run", recipe, "--out", "run", "--log", "run.log").returncode == 2
    assert (tmp_path / "run.log").read_text().startswith(first), "appended"
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    told = [line[20:] for line in lines]
    assert "step 2/2  main  epoch 1/1  bce" in "\n".join(told)
    assert told[-1] == "run: holds a finished run; choose another --out"


def test_a_log_has_every_line_of_a_wrong_recipe_and_that_a_command_was_interrupted(tmp_path):
    recipe = tiny_recipe(CONSOLE | {"seed": -1, "training": {"epochs": -1}}, tmp_path)
    done = lwmfw("run", recipe, "--out", "run", "--log", "run.log")
    told = [line[20:] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert (done.returncode, told) == (2, done.stderr.splitlines())
    assert len(told) == 2
    with pytest.raises(KeyboardInterrupt), logged(tmp_path / "run.log"):
        raise KeyboardInterrupt
    assert (tmp_path / "run.log").read_text().endswith(" interrupted\n")


@pytest.mark.parametrize("silent", [{"console": False}, {"observers": []}])
def test_a_log_of_what_nobody_tells_is_refused(silent, tmp_path, monkeypatch):
    recipe = tiny_recipe(silent, tmp_path)
    done = lwmfw("run", recipe, "--out", "run", "--log", "run.log")
    refusal = (
        "--log run.log: the recipe has no console, whose lines a log holds; leave --log out, or list [[observers]] "
        'with use = "console"\n'
    )
    assert (done.returncode, done.stderr) == (2, refusal)
    assert not (tmp_path / "run").exists()
    inside.die_at(monkeypatch, 1, 0, 0)
    with pytest.raises(Interrupted):
        inside.run(silent, tmp_path)
    assert lwmfw("resume", "run", "--log", "run.log").stderr == refusal


def test_a_log_that_cannot_be_written_is_refused_and_one_that_is_full_costs_no_run(tmp_path):
    recipe = tiny_recipe(CONSOLE, tmp_path)
    refused = lwmfw("run", recipe, "--out", "run", "--log", "no/run.log")
    assert (refused.returncode, refused.stderr) == (
        2,
        "--log no/run.log: No such file or directory; name another file\n",
    )
    full = lwmfw("run", recipe, "--out", "run", "--log", "/dev/full")
    assert full.returncode == 0
    assert full.stderr.count("/dev/full: OSError: [Errno 28] No space left on device; the run goes on\n") == 1
