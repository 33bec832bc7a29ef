"""The numbers of charts, by hand."""

import json
from dataclasses import replace

import pytest
from helpers.results import THREE, named, results_of

from lwmfw import UserError
from lwmfw.record.reading import RecordedRun
from lwmfw.showing import charts, together
from lwmfw.showing.charts import Line, Lines, blocks_of, chart_of


def logged(tmp_path, rows):
    """A run that has logged some epochs."""
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return RecordedRun(tmp_path)


def epoch(step, terms, lr=0.1):
    return {"step": step, "phase": "main", "epoch": 1, "terms": terms, "lr": lr, "images_per_s": 1.0}


def test_seeds_of_a_variant_are_a_mean_and_a_deviation_at_each_step():
    runs = named(results_of([[0.8], [0.6, 0.4]], seed=1), results_of([[0.6], [0.6, 0.0]], seed=2))
    (line,) = charts.accuracy(runs).lines
    assert line.label == "lwm"
    assert line.x == [2, 4]
    assert line.y == pytest.approx([0.7, 0.4])
    assert line.deviation == pytest.approx([0.2 / 2**0.5] * 2)


def test_a_run_that_has_gone_further_has_a_line_of_its_own():
    runs = named(results_of(THREE, seed=1, complete=False).after(2), results_of(THREE, seed=2, complete=False))
    lines = charts.accuracy(runs).lines
    assert [(line.label, line.x) for line in lines] == [
        ("lwm (unfinished, 2 steps)", [2, 4]),
        ("lwm (unfinished, 3 steps)", [2, 4, 6]),
    ]
    (words,) = together.headline(runs)
    assert words.startswith("Accuracy on all classes seen after the last finished step, mean over seeds: lwm (unfin")
    ended = named(results_of(THREE, seed=1), results_of(THREE, seed=2))
    assert together.headline(ended)[0].startswith("Accuracy on all classes after the last step, mean over seeds: lwm ")


def test_what_one_run_alone_has_measured_has_no_deviation():
    both, one = (results_of(THREE, seed=seed) for seed in (1, 2))
    one.steps[1] = replace(one.steps[1], accuracy={"nme": 0.5})
    chart = charts.accuracy(named(both, one), "cnn")
    assert chart.lines[0].deviation == [0, None, 0]
    assert [row[1] for row in chart.table[1]] == ["0.900 ± 0.000", "0.700", "0.700 ± 0.000"]


def test_a_step_without_a_new_class_is_a_place_of_its_own():
    results = results_of(THREE)
    results.steps[2] = replace(results.steps[2], new_classes=[], seen=4)
    chart = charts.accuracy(named(results))
    assert (chart.x_label, chart.lines[0].x) == ("step", [1, 2, 3])


def test_one_run_has_a_line_for_each_read_out_and_no_band():
    (run,) = named(results_of(THREE, who=("cnn", "nme")))
    assert [(line.label, list(line.deviation)) for line in charts.accuracy([run]).lines] == [("cnn", []), ("nme", [])]
    assert [line.label for line in charts.accuracy([run], "nme").lines] == ["lwm"]


def test_forgetting_begins_with_the_second_step():
    (line,) = charts.forgetting(named(results_of(THREE))).lines
    assert line.x == [4, 6]
    assert line.y == pytest.approx([0.3, (0.2 + 0.3) / 2])


def test_several_runs_are_drawn_by_the_best_read_out_that_most_of_them_have():
    own = replace(results_of([[0.9]], who=("cnn", "ridge")), recipe="frozen")
    own.steps[0].accuracy["cnn"] = 0.5
    assert charts.best_readout(named(own)) == "ridge"
    assert charts.best_readout(named(own, results_of([[0.3]]))) == "cnn"


def test_a_variant_looks_alike_in_charts_that_leave_others_out():
    runs = named(replace(results_of([[0.8]]), recipe="joint"), results_of(THREE))
    for chart in (charts.accuracy(runs), charts.forgetting(runs), charts.time(runs)):
        assert {line.label: line.series for line in chart.lines}["lwm"] == 1
    assert [line.label for line in charts.forgetting(runs).lines] == ["lwm"]


def test_the_matrix_has_the_classes_of_each_step_after_each_step():
    heat = charts.matrix(named(results_of(THREE)))
    assert heat.values == [[0.9, None, None], [0.6, 0.8, None], [0.7, 0.5, 0.9]]
    assert "0.700 on those of step 1, 0.500 on those of step 2, 0.900 on those of step 3" in heat.words
    assert heat.table == (
        ["after step \\ classes of step", "1", "2", "3"],
        [["1", "0.900", "", ""], ["2", "0.600", "0.800", ""], ["3", "0.700", "0.500", "0.900"]],
    )


def confused(matrix):
    results = results_of([[0.5], [0.5, 0.5]])
    return named(replace(results, steps=[*results.steps[:1], replace(results.steps[1], confusion={"cnn": matrix})]))


def test_rows_of_the_confusion_are_shares_and_the_worst_mistakes_come_first():
    runs = confused([[3, 1, 0, 0], [0, 4, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0]])
    heat = charts.confusion(runs)
    assert heat.values == [[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0.25, 0.5, 0.25, 0], [None] * 4]
    assert list(heat.borders) == [2]
    assert heat.rows == ["class 0", "class 1", "class 2", "class 3"]
    mistakes = charts.confused(runs[0].results, "cnn")
    assert mistakes[0] == ("class 2", "class 1", 2, 0.5)
    assert [share for *_, share in mistakes] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "matrix", [[], [[1]], [[1, 2, 3, 4]] * 3, [[1, 0, 0, 0], [], [0] * 4, [0] * 4], [[-1, 1, 1, 1]] * 4]
)
def test_a_confusion_of_another_shape_is_none(matrix):
    runs = confused(matrix)
    assert charts.confusion(runs) is None
    assert charts.confused(runs[0].results, "cnn") == []


def test_a_large_confusion_is_summed_over_blocks_and_says_so(monkeypatch):
    assert blocks_of([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 2) == [[12, 9], [15, 9]]
    monkeypatch.setattr(charts, "MOST_CELLS", 2)
    monkeypatch.setattr(charts, "MOST_NAMES", 2)
    heat = charts.confusion(confused([[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 2], [1, 0, 0, 1]]))
    assert heat.values == [[1.0, 0.0], [0.25, 0.75]]
    assert list(heat.borders) == [1]
    assert heat.note == "Each cell stands for 2 x 2 classes, neighbours in the class order."
    assert heat.table is None


def test_terms_are_counted_over_all_steps_and_may_be_missing(tmp_path):
    run = logged(tmp_path, [epoch(1, {"bce": 1.0}), epoch(2, {"bce": 0.5, "L_D": 0.25})])
    chart = charts.loss([run])
    assert [(line.label, line.x, line.y) for line in chart.lines] == [
        ("bce", [1, 2], [1.0, 0.5]),
        ("L_D", [1, 2], [None, 0.25]),
    ]
    assert list(chart.borders) == [1.5]
    assert chart.table == (["epoch, counted over all steps", "bce", "L_D"], [["1", "1", ""], ["2", "0.5", "0.25"]])
    assert "L_D: 0.25 at 2" in chart.words


def test_what_is_alone_is_named_where_no_legend_names_it(tmp_path):
    assert charts.loss([logged(tmp_path, [epoch(1, {"bce": 1.0})])]).y_label == "bce, mean over the epoch"
    assert charts.accuracy(named(results_of(THREE))).title == "Accuracy after each step, by cnn"
    assert charts.accuracy(named(results_of(THREE, who=("cnn", "nme")))).title == "Accuracy after each step"


def test_many_epochs_are_means_of_blocks_which_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 2)
    chart = charts.rate([logged(tmp_path, [epoch(1, {}, lr) for lr in (0.4, 0.2, 0.1)])])
    assert (chart.lines[0].x, chart.lines[0].y) == ([1.5, 3.0], pytest.approx([0.3, 0.1]))
    assert chart.note == "Each point is the mean of 2 epochs."


@pytest.mark.parametrize(("least", "logarithmic"), [(0.001, True), (0.5, False), (0.0, False), (-1.0, False)])
def test_terms_far_apart_have_a_logarithmic_scale(least, logarithmic, tmp_path):
    run = logged(tmp_path, [epoch(1, {"bce": 1.0, "L_D": least})])
    assert charts.loss([run]).logarithmic is logarithmic


def test_lines_of_a_log_that_are_none_are_passed_over(tmp_path):
    run = logged(tmp_path, [epoch(1, {"bce": 1.0}), [1], {"step": 1}, epoch(1, {"bce": float("inf")})])
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 1, "ph')
    assert len(run.epochs) == 1


def test_words_of_a_line_say_where_it_begins_ends_and_turns():
    lines = [Line("a", [1, 2, 3], [0.5, 0.9, 0.4]), Line("b", [1, 2], [0.5, None]), Line("c", [1, 2], [0.1, 0.2])]
    chart = Lines("accuracy", "Accuracy", "classes", "accuracy", lines, share=True)
    assert chart.words == (
        "Accuracy. a: from 0.500 at 1 to 0.400 at 3, between 0.400 and 0.900; b: 0.500 at 1; "
        "c: from 0.100 at 1 to 0.200 at 2."
    )


@pytest.mark.parametrize(
    ("what", "who", "count", "message"),
    [
        ("acuracy", "", 1, "--what acuracy: no such picture; did you mean 'accuracy'?"),
        ("x", "", 1, "--what x: no such picture; there are accuracy, matrix, forgetting"),
        ("accuracy", "nmw", 1, "--readout nmw: no run has it; did you mean 'nme'?"),
        ("loss", "", 2, "--what loss: is of one run, and 2 are named; name one of them"),
        ("loss", "", 1, "--what loss: run1 has nothing of the kind"),
        ("exemplars", "", 1, "--what exemplars: run1 has nothing of the kind"),
    ],
)
def test_a_chart_that_is_not_there_is_refused_with_what_to_do(what, who, count, message):
    runs = named(*[results_of(THREE, who=("cnn", "nme"), seed=seed) for seed in range(count)])
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        chart_of(what, runs, who)
