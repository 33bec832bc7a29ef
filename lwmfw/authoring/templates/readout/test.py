from types import SimpleNamespace
import torch
from lwmfw.testing import check, tiny_run
from lwmfw_medians import Medians, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_an_outlier_moves_no_class():
    features = torch.tensor([[0.0], [1.0], [100.0], [4.0], [5.0], [6.0]])
    run = SimpleNamespace(features=lambda data: features)
    readout, step = Medians(None), SimpleNamespace(new_classes=range(2))
    readout.after_training(run, step, SimpleNamespace(labels=torch.tensor([0, 0, 0, 1, 1, 1])))
    scores = readout.scores(torch.tensor([[1.0], [2.9], [3.1]]))
    assert scores.argmax(1).tolist() == [0, 0, 1]


def test_decides_in_a_run():
    run = tiny_run({"readouts": [{"use": "medians"}]}, components=[RECORD])
    assert run.results.average_incremental_accuracy["medians"] > 0.25
