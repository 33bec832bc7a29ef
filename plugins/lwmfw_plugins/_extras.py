"""Parts of a component's own among the model's extras."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, nn


def place(name: str) -> str:
    """Where a component's part is among the model's extras, whose names have no dots."""
    return name.replace(".", "_")


def linear_head(features: int, rows: int, rng: Generator) -> nn.Linear:
    """A linear head, drawn as torch draws those of a linear layer."""
    from torch import nn

    head: nn.Linear = nn.utils.skip_init(nn.Linear, features, rows)
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -(features**-0.5), features**-0.5, generator=rng)
    return head
