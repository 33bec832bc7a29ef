"""The command line as a new user meets it: verbs, exit codes, and what goes to stdout and what to stderr."""

import json
import re
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import pytest
from filelock import FileLock, Timeout
from helpers import ROOT
from helpers.command import lwmfw, lwmfw_process
from helpers.plugin_files import penalty_file
from helpers.runs import halted

from lwmfw.testing import tiny_recipe, tiny_run

RECIPES = ROOT / "recipes"


def test_run_shows_progress_on_stderr_and_a_table_on_stdout(tmp_path):
    recipe = tiny_recipe({"penalties": [{"use": "L_D"}, {"use": "L_AD"}], "observers": [{"use": "console"}]}, tmp_path)
    done = lwmfw("run", recipe, "--out", "there")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    columns = ["accuracy", "average", "last", "forgetting", "step 1", "step 2", "BWT", "task-aware", "new classes"]
    assert header.split() == " ".join(columns).split()
    results = json.loads((tmp_path / "there" / "results.json").read_text())
    assert row.split()[4:6] == [f"{step['accuracy']['cnn']:.3f}" for step in results["steps"]]
    measures = [results[key]["cnn"] for key in ("average_incremental_accuracy", "last_accuracy", "forgetting")]
    assert row.split()[1:4] == [f"{measure:.3f}" for measure in measures]
    assert "tiny, seed 1: 4 classes of synthetic in 2 steps, resnet20, fp32 on cpu" in done.stderr
    assert "step 2/2  main  epoch 1/1  bce " in done.stderr
    assert "  L_D " in done.stderr
    assert "  L_AD " in done.stderr
    assert "images/s" in done.stderr
    assert "left" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr  # plain lines without a terminal
    files = {path.name for path in (tmp_path / "there").iterdir()}
    written = "recipe.toml resolved.toml env.json metrics.jsonl results.json accuracy.csv checkpoints DONE"
    assert files >= set(written.split())


def test_silence_is_no_observers(tmp_path):
    done = lwmfw("run", tiny_recipe({}, tmp_path))
    assert done.returncode == 0
    assert done.stderr == ""
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert run.name.endswith("-s1")


def test_dry_run_says_what_would_run_and_writes_nothing(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    done = lwmfw("run", recipe, "--dry-run", "--set", "training.epochs=7")
    assert done.returncode == 0
    assert [line.split()[:5] for line in done.stdout.splitlines()[1:]] == [
        ["1", "main", "32", "7", "14"],
        ["2", "main", "32", "7", "14"],
        ["all", "14", "28"],
    ]
    assert list(tmp_path.iterdir()) == [recipe]


def test_check_show_and_schema(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    assert lwmfw("check", recipe).stdout == f"{recipe}: ok\n"
    shown = lwmfw("show", recipe, "--set", "penalties=[{use='L_D', weight=0.5}]", "--seed", "7")
    (tmp_path / "shown.toml").write_text(shown.stdout)
    assert "seed = 7" in shown.stdout
    assert "weight = 0.5" in shown.stdout
    assert lwmfw("show", tmp_path / "shown.toml").stdout == shown.stdout
    schema = json.loads(lwmfw("schema").stdout)
    forms = {form["title"]: form for form in schema["properties"]["penalties"]["items"]["oneOf"]}
    assert forms["L_AD"]["properties"]["distance"]["enum"] == ["l1", "l2"]
    assert forms["L_AD"]["additionalProperties"] is False


def test_recipes_lists_prints_and_copies(tmp_path):
    listed = lwmfw("recipes").stdout
    assert "fashion-mnist-mini/lwf-mc" in listed
    assert lwmfw("recipes", "lwm").stdout == (RECIPES / "lwm.toml").read_text()
    copied = lwmfw("recipes", "lwm", "--copy", "mine").stdout.split()
    assert copied[0] == "mine/lwm.toml"
    assert lwmfw("check", "mine/lwm.toml").returncode == 0
    again = lwmfw("recipes", "lwm", "--copy", "mine")
    assert again.returncode == 2
    assert again.stderr == "mine/lwm.toml: exists; copy into another folder\n"
    unknown = lwmfw("recipes", "lmw")
    assert (unknown.returncode, unknown.stderr) == (2, "no shipped recipe 'lmw'; did you mean 'lwm'?\n")


def test_a_shipped_recipe_runs_by_its_name():
    assert lwmfw_process("check", "lwm").returncode == 0


def test_plugins_and_hooks_print_the_manual():
    listed = lwmfw("plugins").stdout
    for name in ("L_D", "L_AD", "resnet32", "cosine", "bce", "console", "synthetic"):
        assert f" {name} " in listed
    page = lwmfw("plugins", "L_AD").stdout
    assert 'distance  "l1" | "l2"' in page
    assert "muc: distillation by several classifiers of each step (multi-classifier paradigm, Liu et al., ECCV" in (
        page := lwmfw("plugins", "muc").stdout
    ), "what the file says at its head: source and equations"
    assert '  data set  { use = "synthetic", classes = 100 }' in page
    assert lwmfw("plugins", "L_A").stderr == "no component named 'L_A'; did you mean 'L_AD'?\n"
    assert "compute_penalty(step, batch, new, old, model)" in lwmfw("hooks", "compute_penalty").stdout
    assert (
        lwmfw("hooks", "compute_penalti").stderr == "no hook named 'compute_penalti'; did you mean 'compute_penalty'?\n"
    )


def test_compare_puts_runs_side_by_side_and_averages_seeds(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    for seed in (1, 2):
        assert lwmfw("run", recipe, "--out", f"run{seed}", "--seed", seed).returncode == 0
    table = lwmfw("compare", "run1", "run2").stdout.splitlines()
    assert len(table) == 2
    assert table[1].split()[:3] == ["tiny", "cnn", "2"]
    assert "±" in table[1]
    csv = lwmfw("compare", "run1", "run2", "--format", "csv").stdout.splitlines()
    assert (
        csv[0] == "run,recipe,seed,step,seen,classifier,classes_of,accuracy,"
        "average,forgetting,backward_transfer,task_aware,new_classes"
    )
    assert csv[1].startswith("run1,tiny,1,1,2,cnn,all,")
    assert len(csv) == 1 + 2 * (2 + 3)
    missing = lwmfw("compare", "nothing")
    assert (missing.returncode, missing.stderr) == (2, "nothing: no results.json; no run directory\n")


def test_usage_errors_exit_2():
    for arguments in (["run"], ["rnu"], ["run", "lwm", "--devise", "cpu"], ["run", "lwm", "--resume", "perhaps"]):
        done = lwmfw(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


def test_an_existing_directory_is_never_written_over(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    refused = lwmfw("run", recipe, "--out", "full")
    assert (refused.returncode, refused.stderr) == (2, "full: not empty and no run directory; choose another --out\n")
    assert lwmfw("run", recipe, "--out", "run").returncode == 0
    before = (tmp_path / "run" / "results.json").read_bytes()
    again = lwmfw("run", recipe, "--out", "run")
    assert (again.returncode, again.stderr) == (2, "run: holds a finished run; choose another --out\n")
    (tmp_path / "run" / "DONE").unlink()
    other = lwmfw("run", recipe, "--out", "run", "--set", "training.lr=0.2")
    assert other.returncode == 2
    assert other.stderr == "run: holds a run of another recipe (training.lr differs); choose another --out\n"
    never = lwmfw("run", recipe, "--out", "run", "--resume", "never")
    assert never.returncode == 2
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    must = lwmfw("run", recipe, "--out", "new", "--resume", "must")
    assert (must.returncode, must.stderr) == (2, "new: holds no run to resume; leave --resume out to start one\n")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_busy_directory_exits_5(tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        done = lwmfw_process("run", tiny_recipe({}, tmp_path), "--out", "run")
    assert done.returncode == 5
    assert done.stderr.startswith("run: busy, owned by ")


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (PermissionError(13, "Permission denied"), 2, "cannot be used: Permission denied; have it made writable"),
        (Timeout("run/.lock"), 5, r"busy, owned by process \d+ on \S+; wait for it"),
    ],
)
def test_resume_advises_nothing_that_it_has_no_option_for(fault, code, said, tmp_path):
    run = halted(tmp_path, {})
    with patch("filelock.FileLock.acquire", side_effect=fault):
        done = lwmfw("resume", run)
    assert done.returncode == code
    assert re.fullmatch(f"{run}: {said}\n", done.stderr)


def test_a_current_folder_that_was_removed_is_told_of_before_anything_is_loaded():
    command = f"mkdir gone && cd gone && rmdir ../gone && exec {sys.executable} -m lwmfw run lwm --out /nowhere/run"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    said = ".: the current folder is gone (No such file or directory); change to one that is there\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_damaged_checkpoint_exits_4(tmp_path):
    recipe = tiny_recipe({}, tmp_path)
    assert lwmfw("run", recipe, "--out", "run").returncode == 0
    (tmp_path / "run" / "DONE").unlink()
    (tensors,) = (tmp_path / "run" / "checkpoints").glob("step-0002/tensors.safetensors")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    done = lwmfw("resume", "run")
    assert done.returncode == 4
    assert "tensors.safetensors: damaged, sha256 is" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_exception_in_a_plug_in_exits_1_with_its_traceback(tmp_path):
    penalty_file(tmp_path, "@hookimpl\ndef compute_penalty(self, new): raise KeyError('gone')")
    recipe = tiny_recipe({"plugins": ["probe.py"], "penalties": [{"use": "probe"}]}, tmp_path)
    done = lwmfw("run", recipe, "--out", "run")
    assert done.returncode == 1
    *trace, last = done.stderr.splitlines()
    assert trace[0].startswith("Traceback")
    assert last == (
        "probe.py:12: Probe.compute_penalty raised KeyError: 'gone'; the run stopped in step 2, epoch 1, batch 1"
    )
    assert (tmp_path / "run" / "checkpoints" / "step-0001").is_dir()  # what was learned is kept


def test_a_loss_that_is_not_finite_exits_1(tmp_path):
    done = lwmfw(
        "run", tiny_recipe({"training": {"lr": 1000.0, "epochs": 20}}, tmp_path), "--set", "classifier.use=linear"
    )
    assert done.returncode == 1
    assert "term 'bce' is not finite; the run stopped in step 1, epoch" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_exits_2_and_says_what_gets_it(tmp_path):
    recipe = tiny_recipe({"data": {"use": "fashion-mnist", "root": str(tmp_path / "nowhere")}}, tmp_path)
    done = lwmfw("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert str(tmp_path / "nowhere" / "FashionMNIST" / "raw") in done.stderr
    assert "dataset-fashion-mnist" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_that_resume_finishes(number, code, tmp_path):
    big = {
        "data": {"use": "synthetic", "classes": 6, "train_per_class": 64, "test_per_class": 8},
        "penalties": [{"use": "L_D"}],
        "training": {"epochs": 8, "first": {"epochs": 1}},  # the signal comes once step 1 is done
    }
    recipe = tiny_recipe(big, tmp_path)
    assert lwmfw("run", recipe, "--out", "whole").returncode == 0
    command = [sys.executable, "-m", "lwmfw", "run", str(recipe), "--out", "cut"]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a background job ignores it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **heard) as run:
        log = tmp_path / "cut" / "metrics.jsonl"
        while not log.exists() or '"step": 2' not in log.read_text():
            assert run.poll() is None, "the run ended before it could be interrupted"
            time.sleep(0.01)
        run.send_signal(number)
        _, said = run.communicate(timeout=30)
    assert run.returncode == code
    assert "1 finished step is kept, and step 2 as far as it had come; go on with `lwmfw resume cut`" in said
    assert "Traceback" not in said
    assert lwmfw("resume", "cut").returncode == 0
    whole, cut = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut"))
    for results in (whole, cut):
        for step in results["steps"]:
            del step["train_seconds"], step["part_seconds"]
    assert cut == whole


def test_a_mistyped_recipe_is_suggested_and_a_suffix_does_no_harm():
    assert lwmfw("check", "lwn").stderr.strip() == "lwn: no such file; did you mean 'lwm'?"
    assert lwmfw("check", "lwm.toml").returncode == 0


@pytest.mark.parametrize("long", ["a" * 300, "a/" * 3000 + "b"], ids=["name", "path"])
def test_a_name_that_no_file_can_have_is_refused_in_a_line(long, tmp_path):
    run, recipe = tiny_run({}, tmp_path).path, tiny_recipe({}, tmp_path)
    for words in (
        ("run", recipe, "--out", long),
        ("run", recipe, "--from", long),
        ("resume", long),
        ("predict", long, tmp_path),
        ("predict", run, long),
        ("export", long, "--format", "pt2"),
        ("export", run, "--format", "pt2", "--out", long),
        ("extend", long, "--data", tmp_path),
        ("merge", long, long),
        ("verify", long),
        ("compare", long),
        ("report", long),
        ("recipes", "--copy", long),
    ):
        done = lwmfw(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (words, done.stderr)
