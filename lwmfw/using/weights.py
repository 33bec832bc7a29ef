"""Weights that were trained elsewhere, read from a file: tensors by name, without wrappers, prefixes and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwmfw.errors import UserError
from lwmfw.model.weights import examine, read_checkpoint

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def unwrapped_weights(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by the names that the network's library gives them, and what was taken off to get there.

    Raises:
        UserError: it cannot be read, holds no weights, or holds what no trained network has.
    """
    found, said = _unwrapped(read_checkpoint(file), file)
    examine(file, found)
    single, more = _in_single_precision(found)
    return single, [*said, *more]


def _unwrapped(content: Any, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    said: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content, said = content[inner], [*said, f"took '{inner}' out of it"]
    tensors = content if isinstance(content, Mapping) else {}
    found = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not found:
        raise UserError(f"{file}: holds no tensors by name; save model.state_dict()")
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in found)), ""):
        found, said = (
            {name.removeprefix(prefix): value for name, value in found.items()},
            [*said, f"dropped '{prefix}'"],
        )
    return found, said


def _in_single_precision(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    others = [name for name, value in tensors.items() if value.is_floating_point() and value.dtype != torch.float32]
    said = [f"made float32 of {tensors[others[0]].dtype}"] if others else []
    own = torch.contiguous_format
    # copies, for a file of torch's may hold tensors that share their values, and no .safetensors file does
    return {
        name: value.float() if name in others else value.clone(memory_format=own) for name, value in tensors.items()
    }, said


@dataclass(frozen=True)
class Head:
    """The last layer of a classification network.

    Attributes:
        name: what its tensors' names begin with.
        weight: (K, D).
        bias: (K,); zero if there is none.
    """

    name: str
    weight: Tensor
    bias: Tensor


def find_head(tensors: Mapping[str, Tensor], body: Mapping[str, Tensor], width: int) -> Head | None:
    """The linear layer on features that a network without its head has no place for, if there is one.

    Args:
        tensors: of a file, by name, which may come in any order.
        body: of the network without a head that was filled from them, under whatever names.
        width: D.
    """
    for name, weight in tensors.items():
        bias = tensors.get(name.removesuffix("weight") + "bias")
        fits = bias is not None and bias.shape == weight.shape[:1]
        linear = weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2:] == (1, 1) and fits)
        if not name.endswith(".weight") or not linear or weight.shape[1] != width:
            continue
        if not any(weight.shape == part.shape and weight.equal(part) for part in body.values()):
            rows = weight.flatten(1)
            return Head(
                name.removesuffix(".weight"), rows, bias if fits and bias is not None else rows.new_zeros(len(rows))
            )
    return None
