"""Optimiser and schedule of a phase, both torch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR

from lwmfw.assembly.calls import Attached
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import RunFailed, WrongAnswer, shown
from lwmfw.recipe.phase import Phase

Groups = Sequence[Mapping[str, Any]]
"""Parameters that have settings of their own, as torch's optimisers take them."""
Answers = Sequence[tuple[Attached, Groups]]
"""Components, and the groups of parameters that each wants apart."""


def build_optimizer(phase: Phase, model: nn.Module, answers: Answers, assembly: Assembly) -> Optimizer:
    """The optimiser of everything that requires gradients.

    Args:
        phase: which, and its settings.
        model: what is trained.
        answers: components, and the groups of parameters that each wants apart.
        assembly: the components of the run.

    Raises:
        RunFailed: two components want one parameter apart, or none requires a gradient.
    """
    apart: dict[int, Attached] = {}
    parameters: list[dict[str, Any]] = []
    for part, groups in answers:
        own = {id(p): part for group in groups for p in group["params"]}
        for other in {apart[key].name: apart[key] for key in own.keys() & apart.keys()}.values():
            raise part.failure(
                f"{part.provider}: {part.name}.group_parameters groups a parameter that {other.name} of "
                f"{other.provider} groups already; leave one of them out"
            )
        apart |= own
        parameters += map(dict, groups)
    if not any(p.requires_grad for p in model.parameters()):
        hooks = {"before_step", "group_parameters"}
        able = [part for part in assembly.components.values() if part.record.kind != "readout" and hooks & part.hooks]
        left = " and ".join(f"{part.name} of {part.provider}" for part in able if part.record.kind != "observer")
        raise RunFailed(
            f"phase '{shown(phase.name)}' has nothing to train: {left or 'the network'} left no parameter that "
            f"requires a gradient; the run stopped {assembly.position}; leave some, or set training.epochs = 0"
        )
    parameters.insert(0, {"params": [p for p in model.parameters() if p.requires_grad and id(p) not in apart]})
    fused = True if all(p.is_cuda for group in parameters for p in group["params"]) else None  # one launch for all
    match phase.optimizer:
        case "adam":
            return Adam(parameters, phase.lr, weight_decay=phase.weight_decay, fused=fused)
        case "adamw":
            return AdamW(parameters, phase.lr, weight_decay=phase.weight_decay, fused=fused)
        case _:
            return SGD(parameters, phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay, fused=fused)


def check_parameters(optimizer: Optimizer, model: nn.Module) -> None:
    """See that an optimiser, which is built once in a phase, still has all that is to learn.

    Raises:
        WrongAnswer: the network has made parameters since.
    """
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if any(p.requires_grad and id(p) not in known for p in model.parameters()):
        raise WrongAnswer(
            "backbone", "was given new parameters inside a phase, which would not learn; change it after the last epoch"
        )


def build_schedule(phase: Phase, optimizer: Optimizer, updates: int) -> LRScheduler:
    """The learning rate of each of `updates` updates."""
    if phase.schedule == "cosine":
        return CosineAnnealingLR(optimizer, updates)
    if phase.schedule == "steps":
        return MultiStepLR(optimizer, [round(share * updates) for share in phase.milestones], phase.gamma)
    return ConstantLR(optimizer, factor=1.0)
