"""Weights that were trained elsewhere, read from a file: tensors by name, without wrappers, prefixes and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled here
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lwmfw.errors import UserError, describe

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def read_weights(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by the names that the network's library gives them, and what was taken off to get there.

    The one place where a file of torch's own format is read, of which nothing but tensors is taken.

    Raises:
        UserError: it cannot be read, or holds no weights.
    """
    try:
        if file.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than tensors, which is not read; save model.state_dict() with torch.save, or better "
            "with safetensors.torch.save_file"
        ) from error
    except Exception as error:  # of any kind, as unpickling raises for what is no file of torch's
        raise UserError(f"{file}: cannot be read ({describe(error)}); name a .safetensors or .pth file") from error
    return _unwrapped(content, file)


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
    halves = [name for name, value in found.items() if value.is_floating_point() and value.dtype != torch.float32]
    if halves:
        said.append(f"made float32 of {found[halves[0]].dtype}")
    return {name: value.float() if name in halves else value.contiguous() for name, value in found.items()}, said


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
