"""Tables on terminals of any width, and text on streams of any letters."""

import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from helpers.command import lwmfw
from helpers.results import named, results_of

from lwmfw.cli import act, main, use
from lwmfw.cli.table import print_table
from lwmfw.record.tables import comparison_rows, result_rows
from lwmfw.search.decide import Found, Trial
from lwmfw.testing import tiny_recipe
from lwmfw.using.predict import Decision, Said


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what is printed."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def isatty(self):
        return True

    @property
    def lines(self):
        return [line.rstrip() for line in self.buffer.getvalue().decode(self.encoding).splitlines()]


@pytest.fixture
def terminal(monkeypatch):
    def of(columns, encoding="utf-8"):
        for name, value in {"COLUMNS": columns, "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr("rich.console.Console.is_terminal", False)  # no codes for bold letters among the text
        monkeypatch.setattr(sys, "stdout", Terminal(encoding))
        return sys.stdout

    return of


def many_steps(steps):
    """Two seeds of a run, as `compare` meets them."""
    rows = [[0.5] * n for n in range(1, steps + 1)]
    return named(
        *(results_of([[v + seed / 100 for v in row] for row in rows], recipe="l" * 28, seed=seed) for seed in (1, 2))
    )


MEASURES = ["average", "last", "forgetting"]


@pytest.mark.parametrize("steps", [2, 10, 26, 50, 100])
@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_measures_are_first_and_whole_however_many_steps_there_are(steps, columns, terminal):
    runs, screen = many_steps(steps), terminal(columns)
    print_table(*comparison_rows(runs), kept=6)
    print_table(*result_rows(runs[0].results), kept=4)
    assert all(len(line) <= columns for line in screen.lines)
    text = "\n".join(screen.lines)
    assert text.count("0.515 ± 0.007") >= 2, "average and last are not broken"
    assert "0.000 ± 0.000" in text
    assert [word for word in text.split() if word in MEASURES] == MEASURES * 2
    assert "l" * (28 if columns < 80 else 12) in text, "a folded name is still one"


def test_steps_follow_the_measures_as_far_as_the_terminal_is_wide(terminal, capsys):
    runs, screen = many_steps(26), terminal(80)
    print_table(*result_rows(runs[0].results), kept=4)
    assert screen.lines[0].split("  ")[-5:] == ["step 1", "step 2", "step 3", "step 4", "step 5"]
    assert capsys.readouterr().err == "columns left out: 24; widen the terminal, or send the table to a file\n"


def test_on_a_very_narrow_terminal_a_row_is_a_block_of_lines(terminal):
    screen = terminal(40)
    print_table(*comparison_rows(many_steps(2)), kept=6)
    assert screen.lines == [
        "recipe      " + "l" * 28,
        "read-out    cnn",
        "seeds       2",
        "average     0.515 ± 0.007",
        "last        0.515 ± 0.007",
        "forgetting  0.000 ± 0.000",
        "",
    ]


@pytest.mark.parametrize(("kept", "columns"), [(0, 44), (4, 53)])
def test_numbers_of_any_table_are_not_broken_nor_what_is_kept(kept, columns, terminal):
    screen = terminal(columns)
    row = ["a recipe of quite a long name", "some-read-out", "0.000123456", "0.000654321"]
    print_table(["recipe", "classifier", "default", "at the end"], [row], kept=kept)
    assert any("0.000123456  0.000654321" in line for line in screen.lines)
    assert kept == 0 or any("some-read-out" in line for line in screen.lines)
    assert all(len(line) <= columns for line in screen.lines)


def searched(monkeypatch, tmp_path):
    trade_offs = {"penalties.L_D.weight": 1.0, "penalties.L_AD.weight": 0.5}
    trial = Trial(2, "stability", 0.05, trade_offs, 0.72, 0.81, 0.85, 1.0, None)
    monkeypatch.setattr("lwmfw.search.trials.search_recipe", lambda *_: [Found(0.9, trial, True, 3)])
    act.search(tiny_recipe({"penalties": [{"use": "L_D"}]}, tmp_path), "0.05")


def predicted(monkeypatch, tmp_path):
    decision = Decision("photographs/jacket-from-behind.jpg", [Said("Ankle boot", 5.12345, 0.987654)])
    use._print_table([decision], SimpleNamespace(probability="softmax of logits"))


WORDS = {
    searched: ["step 2", "L_D.weight 1", "L_AD.weight 0.5", "trials 3"],
    predicted: ["image photographs/jacket-from-behind.jpg", "class Ankle boot", "probability 0.987654"],
}


@pytest.mark.parametrize("verb", WORDS)
def test_where_columns_do_not_fit_no_word_is_broken(verb, terminal, monkeypatch, tmp_path):
    screen = terminal(40)
    verb(monkeypatch, tmp_path)
    words = [line.split() for line in WORDS[verb]]
    assert [line for line in (each.split() for each in screen.lines) if line in words] == words


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_a_table_on_a_terminal_of_few_letters_stays_aligned(encoding, terminal):
    screen = terminal(80, encoding)
    with pytest.raises(SystemExit):
        main()  # no verb: the door that every verb goes through
    start = len(screen.lines)
    print_table(*comparison_rows(many_steps(2)), kept=6)
    header, rule, *rows = screen.lines[start:]
    assert set(rule) <= {"-", "─"}
    assert header.index("forgetting") + len("forgetting") == len(rows[0])
    assert "?" not in "".join(rows)


VERBS = [["recipes"], ["recipes", "lwm"], ["plugins"], ["plugins", "L_AD"], ["hooks"], ["show", "lwm"], ["check", "é"]]


@pytest.mark.parametrize("verb", [*VERBS, ["compare", "é/results.json"], ["run", "é.toml"], ["--help"]], ids=" ".join)
def test_every_verb_speaks_on_an_ascii_stream(verb, tmp_path, monkeypatch):
    (tmp_path / "é").mkdir()
    results = [run.results.to_json() for run in many_steps(2)]
    (tmp_path / "é" / "results.json").write_text(json.dumps(results[0] | {"recipe": "été ± …"}))
    (tmp_path / "é.toml").write_text('name = "é"\n')
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["lwmfw", *verb])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, 2)
    said = "".join(stream.buffer.getvalue().decode("ascii") for stream in streams.values() if not stream.flush())
    assert said
    if verb[0] == "compare":
        assert r"\u00e9t\u00e9 +- ..." in said, "what has no letter like it is escaped as in TOML"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_file_whose_name_is_no_text_can_be_told(tmp_path):
    done = lwmfw("check", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.toml"))
    assert done.returncode == 2
    assert "no such file" in done.stderr
