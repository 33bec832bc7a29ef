"""What a model looks at by the logits of its classifier, as `lwmfw.attention` has it, at the pooled map or a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lwmfw import attention

if TYPE_CHECKING:
    from torch import Tensor

    from lwmfw import Model, Outputs


def check_positions(model: Model, layer: Literal["pooled"] | int) -> None:
    """See that a map has positions to look at: a vector of length 1 that has one element says nothing.

    Args:
        model: asked for its maps of a black image.
        layer: the map that is looked at, or the stage at whose end it is, from 1.

    Raises:
        UserError: it has one position.
    """
    import torch

    from lwmfw import UserError, evaluating

    if model.image is None:
        return
    with evaluating(model):
        body = model.backbone(torch.zeros(1, *model.image, device=model.device))
    maps = [each.shape[2] * each.shape[3] for each in body.maps]
    if (body.pooled[0, 0].numel() if layer == "pooled" else maps[layer - 1]) > 1:
        return
    place = "the pooled map" if layer == "pooled" else f"the map of stage {layer}"
    size = "x".join(map(str, model.image[1:]))
    wider = [number for number, positions in enumerate(maps, 1) if positions > 1]
    advice = f"set layer = {wider[-1]}, whose map has {maps[wider[-1] - 1]}" if wider else "choose another backbone"
    raise UserError(f"layer: {place} has one position for images of {size}; {advice}, or take larger images")


def pooled_attention(outputs: Outputs, classes: Tensor, eps: float) -> Tensor:
    """Attention at the map whose spatial mean the classifier sees, (B, H*W).

    There the gradient is the same at every position, the head's own gradient over H*W, so Grad-CAM has a closed form
    for any head: no backward pass through the backbone, and exactly differentiable through map and head.
    """
    maps = outputs.pooled
    assert maps is not None, "needs 'pooled'"  # noqa: S101 - assured at assembly
    positions = maps.shape[2] * maps.shape[3]
    return attention(maps, outputs.channel_weights(classes) / positions, eps)


def stage_attention(outputs: Outputs, stage: int, classes: Tensor, eps: float) -> Tensor:
    """Attention at the end of a stage, (B, H*W), by autograd; for the new model with a second-order graph."""
    return attention(outputs.maps[stage], outputs.map_weights(stage, classes), eps)
