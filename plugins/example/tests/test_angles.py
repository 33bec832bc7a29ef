import torch
from lwmfw_angles import angle_difference, register_components

from lwmfw.testing import check, tiny_run

(ANGLES,) = register_components()


def test_equals_a_loop_over_pairs():
    rng = torch.Generator().manual_seed(0)
    new, old = (torch.randn(4, 3, generator=rng, dtype=torch.float64) for _ in range(2))

    def cosine(x, i, j):
        return (x[i] @ x[j]) / (x[i].norm() * x[j].norm())

    pairs = [(cosine(new, i, j) - cosine(old, i, j)) ** 2 for i in range(4) for j in range(4)]
    torch.testing.assert_close(angle_difference(new, old), sum(pairs) / 16)


def test_does_not_see_the_length_of_features():
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert angle_difference(features, 5 * features) < 1e-12


def test_keeps_the_contract_of_penalties():
    check(ANGLES, weight=0.5)


def test_trains_from_the_second_step_on():
    terms = tiny_run({"penalties": [{"use": "angles", "weight": 2.0}]}, components=[ANGLES]).terms
    assert "angles" not in terms[1]
    assert terms[2]["angles"] > 0
