"""`compare` for papers, pages and programs: the same numbers in every form, and text of strangers that stays text."""

import json
import re
import sys

import pytest
from helpers.command import lwmfw
from helpers.results import named, results_of

from lwmfw.cli.formats import latex_table, markdown_table
from lwmfw.cli.look import print_comparison


def write(folder, **recipes):
    """results.json files of runs of one step: name of a file -> recipe, and accuracies of seeds 1, 2, ..."""
    paths = []
    for name, (recipe, accuracies) in recipes.items():
        for seed, value in enumerate(accuracies, 1):
            paths.append(folder / f"{name}-{seed}.json")
            paths[-1].write_text(json.dumps(results_of([[value]], recipe=recipe, seed=seed).to_json()))
    return paths


@pytest.fixture
def two(tmp_path):
    return write(tmp_path, a=("a", [0.25, 0.75]), b=("b", [0.5, 1.0]))


def test_latex_is_a_tabular_whose_numbers_are_mathematics(two):
    done = lwmfw("compare", "--format", "latex", *two)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        r"\begin{tabular}{llrrrrrr}",
        r"  \toprule",
        r"  recipe & read-out & seeds & average & last & average: difference & last: difference & new classes \\",
        r"  \midrule",
        r"  a & cnn & $2$ & $0.500 \pm 0.354$ & $0.500 \pm 0.354$ & baseline & baseline & $0.500 \pm 0.354$ \\",
        r"  b & cnn & $2$ & $0.750 \pm 0.354$ & $0.750 \pm 0.354$ & $+0.250$ {[}$+0.250$, $+0.250${]} n=$2$ & "
        r"$+0.250$ {[}$+0.250$, $+0.250${]} n=$2$ & $0.750 \pm 0.354$ \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_markdown_has_a_row_a_line(two):
    done = lwmfw("compare", "--format", "markdown", "--baseline", "b", *two)
    assert done.stdout.splitlines()[:3] == [
        "| recipe | read-out | seeds | average | last | average: difference | last: difference | new classes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        r"| a | cnn | 2 | 0.500 ± 0.354 | 0.500 ± 0.354 | -0.250 \[-0.250, -0.250\] n=2 "
        r"| -0.250 \[-0.250, -0.250\] n=2 | 0.500 ± 0.354 |",
    ]


def test_json_is_the_whole_comparison(two):
    told = json.loads(lwmfw("compare", "--format", "json", "--baseline", two[2], *two).stdout)
    assert (told["schema"], told["baseline"]) == (1, "b")
    assert told["rows"][0]["differences"]["average"] == {"mean": -0.25, "low": -0.25, "high": -0.25, "n": 2}


def test_a_table_says_what_its_differences_mean_on_stderr_and_only_where_there_are_some(two):
    done = lwmfw("compare", *two)
    assert '95 % interval of Student\'s t for pairs; "may be 0": these seeds do not tell the two apart' in done.stderr
    assert lwmfw("compare", *two[:2]).stderr == ""


def test_tidy_accuracies_have_no_differences(two):
    done = lwmfw("compare", "--format", "csv", "--bytes", *two)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--format csv: has every run by itself; leave --baseline and --bytes out")
    wrong = lwmfw("compare", "--baseline", "c", *two)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert wrong.stderr.startswith("--baseline c: no variant or run that is compared")


HOSTILE = [
    "[x] * & % $ # _ { } ~ ^ \\end{tabular}\\input{secret} 50 ± 3",
    "| <script>alert(1)</script> `a` | [b](c) *d* \\| $e$ ~~f~~ &lt;",
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m\r\n\u202eback",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_says_nothing_to_latex_markdown_or_a_terminal(name, tmp_path):
    paths = write(tmp_path, a=(name, [0.5]), b=("b", [0.5]))
    for form in ("table", "latex", "markdown", "json", "csv"):
        done = lwmfw("compare", "--format", form, *paths)
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.stdout)
        lines = done.stdout.splitlines()
        if form == "latex":
            assert len(lines) == 8
            (label,) = [line.split(" & cnn")[0].strip() for line in lines[4:6] if not line.startswith("  b ")]
            commands = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textquotedbl)\{\}"
            rest = re.sub(r"\\[{}$&#_%]", "", re.sub(commands, "", label).replace("{[}", "").replace("{]}", ""))
            assert not re.search(r"[\\$&#_%~^<>|\"\[\]]", rest.replace("{*}", "")), label
        if form == "markdown":
            assert len(lines) == 4
            assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {9}
            assert not re.search(r"(?<!\\)(?:\\\\)*[<`*$]", lines[2])
        if form == "csv":
            assert not [line for line in lines if line.split(",")[1].startswith(("=", '"='))]
        if form == "json":
            assert name in {row["recipe"] for row in json.loads(done.stdout)["rows"]}


def test_numbers_in_names_are_no_mathematics():
    latex = latex_table(["recipe", "average"], [["top5 1.5 ± 0.1", "-0.1 ± 0.2"]], ["recipe"])
    assert r"  top5 1.5 ± 0.1 & $-0.1 \pm 0.2$ \\" in latex
    assert markdown_table(["recipe"], [["a\nb  c"]], []) == "| recipe |\n| ---: |\n| a b c |"


def test_long_names_are_shortened_on_a_terminal_and_stand_below_in_full(capsys, monkeypatch):
    long = [f"{'penalties.L_AD.weight=0.1 ' * 20}training.lr=0.{n}" for n in (1, 2)]
    settings = [{key: name} for key, name in zip(("x", "x"), long, strict=True)]
    runs = named(results_of([[0.5]]), results_of([[0.6]]), settings=settings)
    print_comparison(runs)
    piped = capsys.readouterr().out
    assert all(name in piped for name in long)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("rich.console.Console.is_terminal", False)
    monkeypatch.setenv("COLUMNS", "100")
    print_comparison(runs)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    table = lines[: lines.index(f"[1] lwm x={long[0]}")]
    assert max(map(len, table)) <= 100
    assert [line for line in table if "[2]" in line]
    assert lines[-1] == f"[2] lwm x={long[1]}"
