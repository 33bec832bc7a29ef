"""What a model looks at: Grad-CAM (Selvaraju et al., ICCV 2017) as unit vectors, and how far it has wandered.

The attention of a model for a class is Q = ReLU(sum_k alpha_k A_k), where alpha_k is the spatial mean of the gradient
of the class's score with respect to channel k of a map A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def attention(maps: Tensor, weights: Tensor, eps: float) -> Tensor:
    """Grad-CAM maps as vectors of length 1.

    Args:
        maps: (B, C, H, W).
        weights: (B, C), the channel weights alpha.
        eps: keeps the division finite: a map much weaker than eps, such as one that the ReLU zeroes everywhere,
            becomes a short or zero vector with a finite gradient instead of a unit vector.

    Returns:
        (B, H*W), not negative.
    """
    maps, weights = (t.float() if t.dtype.itemsize < 4 else t for t in (maps, weights))  # computed in bf16
    attended = (maps.flatten(2) * weights[:, :, None]).sum(1).relu()
    return attended / (attended.square().sum(1, keepdim=True) + eps**2).sqrt()


def attention_drift(maps: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and Euclidean distance of each image's attention to where it was first, two tensors (N,).

    Between maps of length 1 they are 0..sqrt(2 H W) and 0..sqrt(2).

    Args:
        maps: (N, H, W).
        first: (N, H, W), or (1, H, W).
    """
    difference = (maps - first).flatten(1)
    return difference.abs().sum(1), difference.square().sum(1).sqrt()
