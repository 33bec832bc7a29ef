"""Sweeps: what runs, what is skipped, what is told. Processes leave what runs leave, without training."""

import io
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import lwmfw
from helpers.plugin_files import ANGLES
from helpers.results import THREE, results_of
from rich.console import Console

from lwmfw.cli import sweep
from lwmfw.engine.threads import use_threads
from lwmfw.errors import RunBusy, UserError
from lwmfw.recipe.load import load_recipe
from lwmfw.record.directory import open_directory
from lwmfw.sweep import jobs
from lwmfw.sweep.folder import SweepFolder, owned
from lwmfw.sweep.grid import Grid, cells_of, parse_seeds
from lwmfw.testing import tiny_recipe


class Ended:
    """A process that has ended."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def terminate(self):
        raise AssertionError("it has ended")


def run(recipe, out, code):
    """What a process leaves of a run that ends with a code: 0, 143 behind its second step, or 7 before it has one."""
    resolved = load_recipe(recipe)
    use_threads(resolved.recipe.training.threads)
    directory, begun = open_directory(resolved, Path(out), "auto")
    if not begun:
        directory.start(resolved)
    if code == 7:
        directory.close()
        return
    (directory.checkpoints / "step-0002").mkdir(parents=True, exist_ok=True)
    (directory.checkpoints / "step-0002" / "manifest.json").write_text("{}")
    results = results_of(THREE[: 3 if code == 0 else 2], recipe="tiny", seed=resolved.recipe.seed, complete=code == 0)
    directory.write_results(results)
    if code == 0:
        directory.finish()
    directory.close()


@pytest.fixture
def processes(monkeypatch):
    """The names of cells whose processes were started; `codes`: name -> what one ends with, if not with 0."""

    class Started(list):
        def __init__(self):
            self.codes = {}

    def start(command, log):
        recipe, out = command[command.index("run") + 1], command[command.index("--out") + 1]
        code = started.codes.get(Path(out).name, 0)
        started.append(Path(out).name)
        log.write_text("a line\nno more disk\n\n")
        if code in (0, 7, 143):
            run(recipe, out, code)
        return Ended(code)

    started = Started()
    monkeypatch.setattr(jobs, "start_here", start)
    monkeypatch.setattr(jobs, "_LOOK", 0)
    return started


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe({}, tmp_path)


def test_a_sweep_runs_what_is_not_done_and_ends_with_the_table_of_all(recipe, processes):
    command = ["sweep", recipe, "--set", "training.lr=0.1,0.05"]
    first = lwmfw(*command)
    assert first.returncode == 0, first.stderr
    assert processes == ["lr=0.1-s1", "lr=0.05-s1"]
    told = [f"{name}: {state}" for name in processes for state in ("running", "done")]
    assert [line for line in first.stderr.splitlines() if "-s1: " in line] == told
    assert first.stderr.endswith("sweeps/tiny: 2 done\n")
    runs = [f"sweeps/tiny/{name}" for name in processes]
    assert first.stdout == lwmfw("compare", *runs).stdout
    assert [line.split("  ")[0] for line in first.stdout.splitlines()[1:]] == [
        "tiny training.lr=0.1", "tiny training.lr=0.05",
    ]  # fmt: skip
    more = lwmfw(*command, "--seeds", "1,2")
    assert (processes[2:], more.returncode) == (["lr=0.1-s2", "lr=0.05-s2"], 0)
    again = lwmfw(*command, "--seeds", "1,2")
    assert (len(processes), again.stdout) == (4, more.stdout)


def test_what_has_failed_is_told_with_its_last_line_and_run_again_where_that_is_asked(recipe, processes):
    processes.codes = {"lr=0.1-s1": 1, "lr=0.05-s1": -9}
    command = ["sweep", recipe, "--out", "made", "--set", "training.lr=0.1,0.05,0.01"]
    failed = lwmfw(*command)
    told = ["lr=0.1-s1: failed: exit 1: no more disk", "lr=0.05-s1: failed: killed by signal 9: no more disk"]
    end = "made: 2 failed, 1 done; mend what failed and run the same command with --retry\n"
    assert failed.returncode == 1
    assert failed.stderr.endswith("\n".join([*told, end]))
    assert [line for line in failed.stderr.splitlines() if line.startswith("lr=0.1-s1: ")] == [
        "lr=0.1-s1: running", "lr=0.1-s1: failed", told[0],
    ]  # fmt: skip
    assert "Traceback" not in failed.stderr
    assert "training.lr=0.01" not in failed.stdout.splitlines()[1], "one variant has nothing to be told from"
    processes.codes = {}
    untried = lwmfw(*command)
    assert (len(processes), untried.returncode) == (3, 1)
    assert untried.stderr.endswith("\n".join([*told, end]))
    tried = lwmfw(*command, "--retry")
    assert (tried.returncode, processes[3:]) == (0, ["lr=0.1-s1", "lr=0.05-s1"])
    assert "failed" not in tried.stderr
    assert len(tried.stdout.splitlines()) == 4
    assert not list(Path("made").glob("*.failed"))


def test_an_unfinished_cell_goes_on_in_its_directory(recipe, processes):
    processes.codes = {"s1": 143}
    assert lwmfw("sweep", recipe, "--seeds", "1,2").returncode == 1
    planned = lwmfw("sweep", recipe, "--seeds", "1,2,3", "--dry-run")
    assert [line.split() for line in planned.stdout.splitlines()] == [
        ["cell", "recipe", "seed", "state"],
        ["s1", "tiny", "1", "unfinished"], ["s2", "tiny", "2", "done"], ["s3", "tiny", "3", "new"],
    ]  # fmt: skip
    processes.codes = {}
    whole = lwmfw("sweep", recipe, "--seeds", "1,2", "--jobs", "2")
    assert (whole.returncode, processes) == (0, ["s1", "s2", "s1"])
    assert whole.stdout == lwmfw("compare", "sweeps/tiny/s1", "sweeps/tiny/s2").stdout


@pytest.fixture
def plugin(tmp_path):
    """A plug-in file, which the recipe beside it names."""
    file = tmp_path / "angles.py"
    file.write_text(ANGLES)
    return file


@pytest.fixture
def of_plugin(plugin, tmp_path):
    return tiny_recipe({"plugins": [plugin.name], "penalties": [{"use": "angles"}]}, tmp_path)


def test_what_becomes_of_a_plugin_file_changes_no_cell(of_plugin, plugin, processes, monkeypatch):
    start = jobs.start_here

    def start_changed(command, log):
        plugin.write_text("raise ValueError('half written')")
        return start(command, log)

    monkeypatch.setattr(jobs, "start_here", start_changed)
    done = lwmfw("sweep", of_plugin, "--seeds", "1,2", "--out", "made")
    assert (done.returncode, processes) == (0, ["s1", "s2"]), done.stderr
    (copy,) = Path("made/.plugins").glob("*/angles.py")
    assert copy.read_text() == ANGLES
    assert f'"{copy.relative_to("made")}#sha256:' in Path("made/s2.toml").read_text()
    assert (Path("made/s2/plugins") / plugin.name).read_text() == ANGLES


def test_a_plugin_file_that_changes_before_it_is_copied_is_told(of_plugin, plugin, tmp_path):
    folder = SweepFolder(tmp_path / "made")
    cells = planned(folder, of_plugin, 2)
    plugin.write_text(ANGLES + "\n")
    with pytest.raises(UserError, match=r"angles\.py: was changed while the sweep began; run the same command again"):
        folder.freeze(cells)
    assert not list(folder.path.glob("*.toml"))


def test_a_copy_that_somebody_has_changed_is_not_written_over(of_plugin, plugin, processes):
    processes.codes = {"s1": 1}
    assert lwmfw("sweep", of_plugin, "--out", "made").returncode == 1
    (copy,) = Path("made/.plugins").glob("*/angles.py")
    copy.write_text("mended = True")
    told = lwmfw("sweep", of_plugin, "--out", "made", "--retry")
    said = f"{copy}: was changed, and is a copy of {plugin}; change that, and remove the copy\n"
    assert (told.returncode, told.stderr, copy.read_text()) == (2, said, "mended = True")


def test_what_failed_before_it_had_a_step_begins_anew_with_a_mended_plugin_file(of_plugin, plugin, processes):
    processes.codes = {"s1": 7, "s2": 7}
    command = ["sweep", of_plugin, "--seeds", "1,2", "--out", "made"]
    assert lwmfw(*command).returncode == 1
    plugin.write_text(f"{ANGLES}\n")
    told = lwmfw(*command)
    said = "holds a run of another recipe (plugins differs); begin it anew with --retry, or choose another --out\n"
    assert (told.returncode, told.stderr) == (2, f"made/s1: {said}")
    with running(Path("made/s1")):
        busy = lwmfw(*command, "--retry")
    assert (busy.returncode, processes[2:]) == (5, []), busy.stderr
    assert lwmfw(*command, "--retry").returncode == 1
    plugin.write_text(f"{ANGLES}\n\n")
    processes.codes = {}
    done = lwmfw(*command, "--retry")
    assert (done.returncode, processes[4:]) == (0, ["s1", "s2"]), done.stderr
    assert Path("made/s1/plugins/angles.py").read_text() == f"{ANGLES}\n\n"
    kept = {path.name: (path / "plugins/angles.py").read_text() for path in Path("made/.aside").iterdir()}
    assert kept == {"s1": ANGLES, "s2": ANGLES, "s1-2": f"{ANGLES}\n", "s2-2": f"{ANGLES}\n"}


@contextmanager
def running(path):
    """Another process has a run."""
    directory, _ = open_directory(load_recipe(path / "resolved.toml"), path, "must")
    yield
    directory.close()


def test_where_steps_are_finished_it_is_told_how_to_go_on_with_a_mended_plugin_file(of_plugin, plugin, processes):
    processes.codes = {"s1": 143}
    command = ["sweep", of_plugin, "--seeds", "1,2", "--out", "made"]
    assert lwmfw(*command).returncode == 1
    Path("made/s1.failed").write_text("exit 1: a bug")
    mended = f"{ANGLES}\n"
    plugin.write_text(mended)
    told = lwmfw(*command, "--retry")
    said = "made/s1: holds a run of another recipe (plugins differs); "
    way = "go on with the mended file with `lwmfw resume made/s1 --plugins FILE`, or choose another --out\n"
    assert (told.returncode, told.stderr) == (2, said + way)
    assert not Path("made/.aside").exists()
    directory, _ = open_directory(load_recipe(of_plugin, seed=1), Path("made/s1"), "must", renewed=True)
    directory.restate(load_recipe(of_plugin, seed=1))  # as `lwmfw resume` does, which was interrupted again
    directory.close()
    processes.codes = {}
    assert lwmfw("sweep", of_plugin, "--seeds", "1", "--out", "made", "--retry").returncode == 0
    assert Path("made/s1/plugins/angles.py").read_text() == mended
    told = lwmfw(*command)
    said = "made/s2: holds a run of another recipe (plugins differs); leave this cell out, or choose another --out\n"
    assert (told.returncode, told.stderr) == (2, said)


@pytest.mark.parametrize(("code", "end", "exits"), [(5, "1 busy: other", 5), (143, "1 interrupted; run the same", 1)])
def test_cells_that_others_have_or_that_were_interrupted_have_not_failed(code, end, exits, recipe, processes):
    processes.codes = {"s1": code}
    done = lwmfw("sweep", recipe)
    assert done.returncode == exits
    assert f"sweeps/tiny: {end}" in done.stderr
    processes.codes = {}
    assert lwmfw("sweep", recipe).returncode == 0
    assert processes == ["s1", "s1"]


def test_no_sweep_takes_the_runs_of_another_recipe_or_a_folder_of_something_else(recipe, processes, tmp_path):
    assert lwmfw("sweep", recipe, "--out", "made").returncode == 0
    other = lwmfw("sweep", tiny_recipe({"training": {"epochs": 2}}, tmp_path), "--out", "made")
    said = "made/s1: holds a run of another recipe (training.epochs differs); choose another --out\n"
    assert (other.returncode, other.stderr) == (2, said)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "s1.toml").write_text("years of work")
    for folder, said in (
        ("full", "full: not empty and no sweep's; choose another --out\n"),
        ("made/s1", "made/s1: not empty and no sweep's; choose another --out\n"),
        ("tiny.toml", "tiny.toml: cannot be used: "),
    ):
        refused = lwmfw("sweep", recipe, "--out", folder)
        assert refused.returncode == 2
        assert refused.stderr.startswith(said)
        assert refused.stderr.count("\n") == 1
    assert (tmp_path / "full" / "s1.toml").read_text() == "years of work"
    assert processes == ["s1"]


def test_a_run_that_is_set_aside_is_not_written_out_of(of_plugin, plugin, processes):
    processes.codes["s1"] = 7
    lwmfw("sweep", of_plugin, "--seeds", "1", "--out", "sweep")
    plugin.write_text(plugin.read_text() + "# mended\n")
    Path("victim").write_text("precious")
    Path("sweep/s1/owner").unlink()
    Path("sweep/s1/owner").symlink_to("../../victim")
    done = lwmfw("sweep", of_plugin, "--seeds", "1", "--out", "sweep", "--retry")
    assert (done.returncode, Path("victim").read_text()) == (4, "precious")
    assert done.stderr.startswith("sweep/s1/owner: is a link that leads out of the run directory; put")


def test_a_plan_writes_nothing(recipe, processes, tmp_path):
    before = set(tmp_path.iterdir())
    assert lwmfw("sweep", recipe, "--seeds", "1,2", "--dry-run").returncode == 0
    assert set(tmp_path.iterdir()) == before
    assert processes == []


def test_of_two_sweeps_in_a_folder_one_runs(recipe, processes):
    with owned(Path("made")):
        done = lwmfw("sweep", recipe, "--out", "made")
        said = "made: busy, another sweep is at work there; wait for it or choose another --out\n"
        assert (done.returncode, done.stderr, processes) == (5, said, [])
        with pytest.raises(RunBusy), owned(Path("made")):
            pass


def planned(folder, recipe, count):
    cells = cells_of(Grid([recipe], {}, parse_seeds(",".join(map(str, range(count))))))
    folder.path.mkdir()
    return cells


class Running(Ended):
    """A process that ends after so many looks, or when it is told to."""

    def __init__(self, looks, alive):
        super().__init__(None)
        self.looks, self.alive, self.told = looks, alive, False
        alive.append(self)

    def poll(self):
        self.looks -= 1
        if self.looks < 0 and self in self.alive:
            self.alive.remove(self)
            self.code = 1
        return self.code

    def terminate(self):
        self.told, self.looks = True, 3


def test_so_many_run_at_a_time(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_LOOK", 0)
    folder, alive, most = SweepFolder(tmp_path / "made"), [], []

    def start(command, log):
        job = Running(len(most) % 3, alive)
        most.append(len(alive))
        return job

    became = jobs.run_cells(folder, planned(folder, recipe, 8), 3, "cpu", start, lambda *_: None)
    assert (max(most), len(most), set(became.values())) == (3, 8, {"failed"})


def test_an_interruption_is_passed_on_and_waited_for(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_LOOK", 0)
    folder, alive = SweepFolder(tmp_path / "made"), []
    cells = planned(folder, recipe, 5)

    def interrupt(cell, state):
        if cell is cells[1]:
            raise KeyboardInterrupt

    started = []

    def start(command, log):
        started.append(Running(1000, alive))
        return started[-1]

    with pytest.raises(KeyboardInterrupt):
        jobs.run_cells(folder, cells, 3, "cpu", start, interrupt)
    assert [job.told for job in started] == [True, True]
    assert alive == [], "it has waited until they ended"
    assert not list(folder.path.glob("*.failed"))


def test_a_device_and_threads_are_passed_on(recipe, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(jobs, "start_here", lambda command, log: commands.append(command) or Ended(1))
    monkeypatch.setattr("lwmfw.cli.sweep._cores", lambda: 7)
    lwmfw("sweep", recipe, "--jobs", "3", "--device", "cpu", "--out", "made")
    assert commands[0][1:] == ["-P", "-m", "lwmfw", "run", "made/s1.toml", "--out", "made/s1", "--device", "cpu"]
    assert "threads = 2\n" in Path("made/s1.toml").read_text()
    lwmfw("sweep", recipe, "--jobs", "30", "--out", "made", "--retry")
    assert "threads = 1\n" in Path("made/s1.toml").read_text()


def test_a_cell_that_has_begun_keeps_its_threads(recipe, processes):
    processes.codes = {"s1": 143}
    assert lwmfw("sweep", recipe, "--threads", "2").returncode == 1
    processes.codes = {}
    assert lwmfw("sweep", recipe, "--threads", "3").returncode == 0
    assert "threads = 2\n" in Path("sweeps/tiny/s1.toml").read_text()


def test_on_a_terminal_each_cell_has_a_line_that_is_cut_where_the_terminal_ends(recipe, tmp_path):
    folder = SweepFolder(tmp_path / "made")
    one, two, three = planned(folder, recipe, 3)
    board = sweep._Board(folder, [one, two, three], live=True)
    folder.log(one).write_text(f"step 1/2\n\x1b[31mstep 2/2 {'epoch ' * 40}\n")
    folder.log(two).write_text("no more disk\n")
    folder.record_failure(two, 1)
    for cell, state in ((one, "running"), (two, "failed")):
        board.tell(cell, state)
    console = Console(file=io.StringIO(), width=60)
    console.print(board)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0].startswith(r"s0  running  \u001b[31mstep 2/2 epoch")
    assert (len(lines[0]), lines[0][-1]) == (60, "…")
    assert lines[1:] == ["s1  failed: exit 1: no more disk", "s2  new"]
