"""The terms of a loss: merged by name, their gradient, and their means over an epoch."""

import re
from types import SimpleNamespace

import pytest
import torch

from lwmfw.assembly.calls import Position
from lwmfw.engine.terms import TermMeans, backward, check_gradient, merge_terms
from lwmfw.errors import RunFailed, WrongAnswer


def scalars(**terms):
    return {name: torch.tensor(value, requires_grad=True) for name, value in terms.items()}


def test_term_means_are_over_the_batches_that_had_the_term():
    means = TermMeans()
    for terms in ({"bce": 1.0, "L_D": 4.0}, {"bce": 2.0}, {"bce": 6.0, "L_D": 8.0}, {"L_D": 0.0, "bce": 3.0}):
        means.add(scalars(**terms))
    assert means.to_host(Position()) == {"bce": (1 + 2 + 6 + 3) / 4, "L_D": (4 + 8 + 0) / 3}


def test_the_sum_of_many_terms_is_not_rounded_to_float32():
    means = TermMeans()
    means.add(scalars(bce=2.0**25))
    for _ in range(7):
        means.add(scalars(bce=1.0))
    assert means.to_host(Position())["bce"] == (2**25 + 7) / 8


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("batches", "term", "batch"),
    [
        ([{"bce": 1.0}, {"bce": None}, {"bce": 1.0}, {"bce": None}], "bce", 2),
        ([{"bce": 1.0, "L_D": 1.0}, {"bce": 1.0, "L_D": None}, {"bce": None, "L_D": None}], "L_D", 2),
        ([{"bce": 1.0}, {"bce": 1.0, "L_D": 1.0}, {"bce": 1.0, "L_D": None}, {"bce": None}], "L_D", 3),
        ([{"bce": 1.0, "L_D": 1.0}, {"bce": None}, {"bce": 1.0, "L_D": None}], "bce", 2),
        ([{"bce": None, "L_D": None}], "bce", 1),
    ],
)
def test_a_term_that_is_not_finite_is_named_with_the_first_bad_batch(bad, batches, term, batch):
    means, position = TermMeans(), Position(step=2, phase="main", epoch=5, batch=len(batches))
    for terms in batches:
        means.add(scalars(**{name: bad if value is None else value for name, value in terms.items()}))
    with pytest.raises(RunFailed, match=f"term '{term}' is not finite; .* in step 2, epoch 5, batch {batch};"):
        means.to_host(position)


def part(name):
    """As much of a component as is told of it."""
    return SimpleNamespace(name=name, provider=f"{name}.py", failure=RunFailed)


def test_terms_are_merged_in_recipe_order():
    answers = [(part("a"), scalars(L_D=2.0)), (part("b"), {}), (part("c"), scalars(L_AD=3.0, more=4.0))]
    terms = merge_terms(scalars(bce=1.0), answers)
    assert [(name, value.item()) for name, value in terms.items()] == [
        ("bce", 1.0), ("L_D", 2.0), ("L_AD", 3.0), ("more", 4.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("repeated", "owner"), [("L_D", "a of a.py"), ("bce", "the objective")])
def test_a_repeated_term_is_refused_with_the_names_of_both(repeated, owner):
    said = f"^b.py: b.compute_penalty returned term '{repeated}', which is a term of {owner} already; rename one$"
    with pytest.raises(RunFailed, match=said):
        merge_terms(scalars(bce=1.0), [(part("a"), scalars(L_D=1.0)), (part("b"), scalars(**{repeated: 1.0}))])


def test_the_gradient_is_that_of_the_sum():
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    backward({"bce": weight[0] ** 2, "L_D": 5 * weight[1], "L_AD": weight.prod()}, Position())
    assert weight.grad.tolist() == [2 * 2 + 3, 5 + 2]


def test_a_gradient_that_cannot_be_computed_is_told_with_the_terms_and_the_place():
    spent = torch.ones(2, requires_grad=True).exp().sum()
    spent.backward()
    said = (
        "the gradient of bce + L_D cannot be computed: Trying to backward through the graph a second time ",
        "; the run stopped in step 2, epoch 3, batch 4; a penalty neither changes outputs in place nor calls backward",
    )
    with pytest.raises(RunFailed, match=f"^{re.escape(said[0])}.*{re.escape(said[1])}$") as failed:
        backward(scalars(bce=1.0) | {"L_D": spent}, Position(step=2, epoch=3, batch=4))
    assert isinstance(failed.value.__cause__, RuntimeError)


def test_memory_that_is_out_is_no_fault_of_a_gradient():
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        backward({"bce": Full.apply(torch.ones((), requires_grad=True))}, Position())


def test_one_term_with_a_gradient_is_enough_and_without_any_the_one_to_blame_is_named():
    logits = torch.ones(2, requires_grad=True)
    check_gradient({"bce": torch.ones(()), "L_D": logits.sum()}, logits)
    with pytest.raises(
        WrongAnswer, match="the objective returned a loss without a gradient; compute it from the"
    ) as it:
        check_gradient({"bce": torch.ones(())}, logits)
    assert it.value.kind == "objective"
    with pytest.raises(
        WrongAnswer, match="the classifier gives logits without a gradient; compute them from its"
    ) as it:
        check_gradient({"bce": torch.ones(())}, logits.detach())
    assert it.value.kind == "classifier"
