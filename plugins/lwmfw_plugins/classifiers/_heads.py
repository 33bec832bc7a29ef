"""Heads whose rows are classes; the rows of old classes keep their weights when new ones are added."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


def proxy_similarities(features: Tensor, proxies: Tensor, scaling: float) -> Tensor:
    """Minus the squared distances of normalised features and normalised proxies, scaled.

    The paper writes the cosine; the authors' code, from which its numbers come, takes -|f - t|^2 = 2 cos - 2. The
    shift is lost in a softmax over classes, but the factor 2 doubles eta and sharpens the softmax over a class's
    proxies: re-implementations with the plain cosine miss the numbers.

    Args:
        features: (B, D).
        proxies: (N, K, D).
        scaling: length to which both are normalised; distances grow by its square.

    Returns:
        (B, N, K), each in -4 scaling^2 .. 0.
    """
    cosines = normalize(features) @ normalize(proxies.flatten(0, 1)).T
    found: Tensor = scaling**2 * (2 * cosines - 2).unflatten(1, proxies.shape[:2])
    return found


def merged(similarities: Tensor, gamma: float) -> Tensor:
    """One similarity per class: its proxies', weighted by their softmax.

    Args:
        similarities: (B, N, K).
        gamma: sharpness of the softmax; 0 is the mean, large values approach the maximum.

    Returns:
        (B, N), between mean and maximum of each class.
    """
    return (similarities * (gamma * similarities).softmax(2)).sum(2)


def _uniform(bound: float, like: Tensor, *shape: int) -> Tensor:
    """Weights in -bound..bound, drawn on the host: a network begins alike on every device."""
    return torch.empty(shape).uniform_(-bound, bound).to(like)


class LinearHead(nn.Module):
    """logits = W f + b, with W (N, D) and b (N,)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.bias = nn.Parameter(torch.empty(0))

    def grow(self, classes: int) -> None:
        """Add rows, drawn as torch draws those of a linear layer."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        rows = _uniform(bound, self.weight, classes, self.weight.shape[1])
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), rows]))
        new = _uniform(bound, self.bias, classes)
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), new]))

    def resize(self, features: int) -> None:
        """Take so many features: columns of the first ones stay, those of new ones are drawn, the others go."""
        kept = self.weight.detach()[:, :features]
        bound = 1 / math.sqrt(max(features, 1))
        columns = _uniform(bound, kept, len(kept), features - kept.shape[1])
        self.weight = nn.Parameter(torch.cat([kept, columns], 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        return linear(features, self.weight, self.bias)


class StepHeads(nn.Module):
    """For every growth, that is for every step, a linear head over the features there were when it came.

    Features that come later are none of an older head's, so that its logits stay what they are while those features do.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.heads = nn.ModuleList()
        self.register_load_state_dict_pre_hook(_take_widths)  # type: ignore[no-untyped-call]

    def resize(self, features: int) -> None:
        """Take so many features: heads that come later will see them."""
        self.features = features

    def grow(self, classes: int) -> None:
        """Add a head."""
        head = LinearHead(self.features)
        head.grow(classes)
        self.heads.append(head)

    def freeze_old(self) -> None:
        """Take all heads but the newest out of training."""
        for old in list(self.heads)[:-1]:
            old.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        # of a part of wider rows torch would multiply in another order, and round otherwise than before they grew
        return torch.cat([head(features[:, : head.weight.shape[1]].contiguous()) for head in self.heads], 1)  # type: ignore[index]


def _take_widths(module: StepHeads, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Have each head see as many features as in a state that is about to be read."""
    for number, head in enumerate(module.heads):
        weight = state.get(f"{prefix}heads.{number}.weight")
        if weight is not None and weight.shape[1] != head.weight.shape[1]:  # type: ignore[index]
            head.resize(weight.shape[1])  # type: ignore[operator]


class DirectionHead(nn.Module, ABC):
    """logits = eta s(f, W), where the similarity s sees nothing of f and W but their directions.

    Attributes:
        weights: one parameter for every growth, that is for every step, so that those of old steps can be frozen. The
            first dimension is classes, the last one features.
        scale: eta; a parameter if it is learned, else a buffer.
    """

    scale: Tensor

    def __init__(self, features: int, scale: float, *, learned_scale: bool = True) -> None:
        super().__init__()
        self.features = features
        self.weights = nn.ParameterList()
        if learned_scale:
            self.scale = nn.Parameter(torch.tensor(scale))
        else:
            self.register_buffer("scale", torch.tensor(scale))

    @property
    def directions(self) -> Tensor:
        """The weights of all classes, (N, ..., D)."""
        return torch.cat(list(self.weights))

    def grow(self, classes: int) -> None:
        """Add rows; those that are there stay the parameters they are."""
        self.weights.append(nn.Parameter(self.drawn(classes)))

    def freeze_old(self) -> None:
        """Take all weights but the newest out of training."""
        for old in list(self.weights)[:-1]:
            old.requires_grad_(False)

    def imprint(self, directions: Tensor) -> None:
        """Put directions in the place of the newest weights, scaled by the mean length of the older ones.

        Beside weights of another length they would learn at another pace.

        Args:
            directions: (new classes, ..., D).
        """
        *old, new = self.weights
        with torch.no_grad():
            new.copy_(directions * torch.cat(old).norm(dim=-1).mean())

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        return self.scale * self.similarities(features)

    @abstractmethod
    def drawn(self, classes: int) -> Tensor:
        """Random weights for more classes, (classes, ..., D)."""

    @abstractmethod
    def similarities(self, features: Tensor) -> Tensor:
        """The logits without eta, (B, D) -> (B, N)."""


class CosineHead(DirectionHead):
    """logits = eta cos(f, W), with W (N, D) and a learned scalar eta (Hou et al., CVPR 2019, equation 4)."""

    def drawn(self, classes: int) -> Tensor:
        """(classes, D), as torch draws those of a linear layer."""
        bound = 1 / math.sqrt(self.features)
        return _uniform(bound, self.scale, classes, self.features)

    def similarities(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N), each in -1..1."""
        return linear(normalize(features), normalize(self.directions))


class ProxyHead(DirectionHead):
    """logits = eta s(f, W), with W (N, K, D) and the similarity of `lwmfw_plugins.classifiers.proxies`."""

    def __init__(
        self, features: int, scale: float, *, proxies: int, scaling: float, gamma: float, learned_scale: bool
    ) -> None:
        super().__init__(features, scale, learned_scale=learned_scale)
        self.proxies, self.scaling, self.gamma = proxies, scaling, gamma

    def drawn(self, classes: int) -> Tensor:
        """(classes, K, D), normal with the variance 1/D that He et al. (ICCV 2015) give a layer without ReLU."""
        shape = (classes, self.proxies, self.features)
        return torch.empty(shape).normal_(std=1 / math.sqrt(self.features)).to(self.scale)

    def similarities(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, N), each in -4..0 times scaling^2."""
        return merged(proxy_similarities(features, self.directions, self.scaling), self.gamma)
