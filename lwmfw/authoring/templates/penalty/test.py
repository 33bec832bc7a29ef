from types import SimpleNamespace
import torch
from lwmfw.testing import check, tiny_run
from lwmfw_angles import Angles, AnglesOptions, register_components

(RECORD,) = register_components()


def test_keeps_the_contract():
    check(RECORD, weight=0.5)


def test_equals_a_loop_over_pairs():
    new, old = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def cosine(x, i, j):
        return (x[i] @ x[j]) / (x[i].norm() * x[j].norm())

    pairs = [(cosine(new, i, j) - cosine(old, i, j)) ** 2 for i in range(4) for j in range(4)]
    component = Angles(AnglesOptions(weight=3.0))
    terms = component.compute_penalty(SimpleNamespace(features=new), SimpleNamespace(features=old))
    torch.testing.assert_close(terms["angles"], 3 * sum(pairs) / 16)


def test_trains_from_the_second_step_on():
    terms = tiny_run({"penalties": [{"use": "angles"}]}, components=[RECORD]).terms
    assert "angles" not in terms[1]
    assert terms[2]["angles"] > 0
