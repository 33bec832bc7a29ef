"""The contract of networks that grow with the steps."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from lwmfw.components import trait
from lwmfw.model.growing import Model, build_model, probed
from lwmfw.recipe.scenario import Step
from lwmfw.testing.tiny import Head


def check_growth(component: Any, *, channels: int = 3, size: int = 32) -> None:
    """Hold a backbone's object that has the hook `grow_model` against the contract: it is read again as it was left.

    Args:
        component: the backbone's object.
        channels: of the images that it is shown.
        size: their height and width in pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(2, channels, size, size)
        model, other = (_grown(component, images) for _ in range(2))
    logits = _logits(model, images)
    assert logits.shape == (2, 6), "the classifier has a logit for each class"
    other.take_state(model.state_dict())
    assert torch.equal(_logits(other, images), logits), "growing again and reading the state gives the same network"
    assert torch.equal(_logits(copy.deepcopy(model), images), logits), "a copy computes the same"
    if "features" in trait(component, "offers"):
        assert model.width == _begun(component, images).width, "features are offered where their number stays"


def _begun(component: Any, images: Tensor) -> Model:
    network = component.build(images.shape[1])
    form = probed(network, images[:1])
    _, channels, height, width = images.shape
    image = (channels, height, width)
    return build_model(network, Head(form.width), images.device, bf16=False, form=form, image=image)


def _grown(component: Any, images: Tensor) -> Model:
    """A model after three steps of two classes, untrained."""
    model, wanted = _begun(component, images), inspect.signature(component.grow_model).parameters
    for index in (1, 2, 3):
        step = Step(index, range(2 * index - 2, 2 * index), range(2 * index), 3)
        offered = {"step": step, "model": model, "rng": torch.Generator().manual_seed(index), "name": "examined"}
        replacement = component.grow_model(**{name: offered[name] for name in wanted})
        if replacement is not None:
            model.backbone = replacement
        model.reshaped()
        model.grow(2)
    return model


def _logits(model: Model, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(images).logits  # type: ignore[no-any-return]
