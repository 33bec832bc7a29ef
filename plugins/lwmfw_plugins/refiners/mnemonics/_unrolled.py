"""The gradient of what a model does after some updates, with respect to the images it was updated on.

A model of parameters theta_0 takes T steps of gradient descent with momentum mu,

    m_(t+1) = mu m_t + grad L_t(theta_t, e),  theta_(t+1) = theta_t - a m_(t+1)

on images e; an outer loss F(theta_T) is differentiated into e. The graph of all steps would take memory that grows with
T. Here the steps go forward without a graph, which leaves T sets of parameters, and backward one at a time. With
v_T = grad F(theta_T) and c_T = 0, step t has

    u = c_(t+1) - a v_(t+1)
    v_t = v_(t+1) + H_t u,  c_t = mu u                  H_t: the second derivative of L_t by theta
    dF/de += (d/de) <grad L_t(theta_t, e), u>

and one backward pass through <grad L_t, u> gives both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Parameters = dict[str, "Tensor"]
"""All of them have a part in every loss."""
InnerLoss = Callable[[Parameters, "Tensor"], "Tensor"]
"""Parameters and images -> the scalar that a step descends."""
OuterLoss = Callable[[Parameters], "Tensor"]
"""Parameters -> a scalar."""


def descend(
    parameters: Parameters, images: Tensor, losses: Sequence[InnerLoss], rate: float, momentum: float = 0.0
) -> list[Parameters]:
    """The parameters before the first step of gradient descent and after each.

    Args:
        parameters: theta_0.
        images: e.
        losses: L_t of each step.
        rate: a.
        momentum: mu.

    Returns:
        T + 1 sets without gradients.
    """
    momenta: Parameters = {}
    way = [{name: p.detach() for name, p in parameters.items()}]
    for loss in losses:
        here = {name: p.requires_grad_() for name, p in way[-1].items()}
        slopes = dict(zip(here, torch.autograd.grad(loss(here, images.detach()), list(here.values())), strict=True))
        momenta = {name: s.add(momenta[name], alpha=momentum) if momenta else s for name, s in slopes.items()}
        way.append({name: p.detach().sub(momenta[name], alpha=rate) for name, p in here.items()})
    return way


def unrolled_gradient(
    parameters: Parameters,
    images: Tensor,
    losses: Sequence[InnerLoss],
    outer: OuterLoss,
    rate: float,
    momentum: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The outer loss after gradient descent on images, and its gradient by the images.

    Args:
        parameters: theta_0.
        images: e, of any shape.
        losses: L_t of each step, one at least; each is computed twice and has to be the same both times.
        outer: F.
        rate: a.
        momentum: mu.

    Returns:
        F(theta_T), and dF/de in the shape of the images.
    """
    way = descend(parameters, images, losses, rate, momentum)
    last = {name: p.requires_grad_() for name, p in way.pop().items()}
    value = outer(last)
    v = torch.autograd.grad(value, list(last.values()))
    carried = tuple(torch.zeros_like(p) for p in v)
    gradient = torch.zeros_like(images)
    for loss in reversed(losses):
        u = tuple(c.sub(p, alpha=rate) for c, p in zip(carried, v, strict=True))
        here = {name: p.detach().requires_grad_() for name, p in way.pop().items()}
        seen = images.detach().requires_grad_()
        of_step = torch.autograd.grad(loss(here, seen), list(here.values()), create_graph=True)
        wanted = [seen, *here.values()] if way else [seen]  # nothing comes before the first step
        by_images, *by_parameters = torch.autograd.grad(of_step, wanted, u)
        gradient += by_images
        v = tuple(p + hu for p, hu in zip(v, by_parameters, strict=False))
        carried = tuple(momentum * each for each in u)
    return value.detach(), gradient
