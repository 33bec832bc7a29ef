from lwmfw.testing import check, tiny_run
from lwmfw_by_class import register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_writes_a_line_for_each_class_after_each_step():
    run = tiny_run({"observers": [{"use": "by-class"}]}, components=[RECORD])
    header, *lines = (run.path / f"{RECORD.name}.csv").read_text().splitlines()
    assert header == "step,class,accuracy"
    assert len(lines) == 2 + 4
    for step in run.results.steps:
        recall = [row[c] / sum(row) for c, row in enumerate(step.confusion["cnn"])]
        worst = run.results.class_names[recall.index(min(recall))]
        assert step.extra["by-class"] == {"worst": worst}
