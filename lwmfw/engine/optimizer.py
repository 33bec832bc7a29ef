"""Optimiser and schedule of a phase, both torch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR

from lwmfw.errors import RunFailed
from lwmfw.recipe.phase import Phase


def build_optimizer(phase: Phase, model: nn.Module, groups: Sequence[Mapping[str, Any]] = ()) -> Optimizer:
    """The optimiser of everything that requires gradients.

    Args:
        phase: which, and its settings.
        model: what is trained.
        groups: parameters that have other settings, as torch's optimisers take them.
    """
    listed = [id(p) for group in groups for p in group["params"]]
    apart = set(listed)
    if len(apart) < len(listed):
        raise RunFailed("two components group one parameter in group_parameters; leave one of them out")
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    parameters: list[dict[str, Any]] = [{"params": rest}, *map(dict, groups)]
    match phase.optimizer:
        case "adam":
            return Adam(parameters, phase.lr, weight_decay=phase.weight_decay)
        case "adamw":
            return AdamW(parameters, phase.lr, weight_decay=phase.weight_decay)
        case _:
            return SGD(parameters, phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay)


def build_schedule(phase: Phase, optimizer: Optimizer, updates: int) -> LRScheduler:
    """The learning rate of each of `updates` updates."""
    if phase.schedule == "cosine":
        return CosineAnnealingLR(optimizer, updates)
    if phase.schedule == "steps":
        return MultiStepLR(optimizer, [round(share * updates) for share in phase.milestones], phase.gamma)
    return ConstantLR(optimizer, factor=1.0)
