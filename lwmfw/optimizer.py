"""Optimiser and schedule of a phase, both torch's own."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler

from lwmfw.types import Phase


def build_optimizer(phase: Phase, model: nn.Module) -> Optimizer:
    """The optimiser of everything that requires gradients."""
    parameters = [p for p in model.parameters() if p.requires_grad]
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
    return ConstantLR(optimizer, factor=1.0)
