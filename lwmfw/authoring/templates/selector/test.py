from types import SimpleNamespace
import torch
from lwmfw import Images
from lwmfw.testing import check
from lwmfw_uncertain import Uncertain, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD)


def test_keeps_those_whose_scores_are_the_closest():
    labels = torch.tensor([0, 1, 0, 1, 0])
    candidates = Images(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), labels)
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 5.0], [3.0, 0.0]])
    run = SimpleNamespace(loader=SimpleNamespace(evaluation_batches=lambda images: [(logits, images.labels)]))
    chosen = Uncertain(None).select_memory(run, Echo(), candidates, {0: 2, 1: 1})
    assert {label: indices.tolist() for label, indices in chosen.indices.items()} == {0: [2, 4], 1: [1]}


class Echo(torch.nn.Module):
    """A model whose logits are what it is shown."""

    def forward(self, logits):
        return SimpleNamespace(logits=logits)
