"""Networks and the device they are on."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch
from torch import nn

from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError
from lwmfw.model.growing import Model, build_model
from lwmfw.model.outputs import Features
from lwmfw.rng import derive_seed

DeviceName = Literal["auto", "cpu", "cuda"]


def new_model(assembly: Assembly, channels: int, size: int, device: torch.device, draw: int = 0) -> Model:
    """The model for images of a size before its first class; initial weights are a function of the seed and `draw`."""
    recipe = assembly.resolved.recipe
    torch.manual_seed(derive_seed(recipe.seed, "model", *[draw] * bool(draw)))
    backbone: nn.Module = assembly.method("backbone", "build")(channels)
    features, stages = _probe(backbone, channels, size, assembly.provider_of("backbone"))
    classifier: nn.Module = assembly.method("classifier", "build")(features)
    precision = recipe.training.precision
    bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    return build_model(backbone, classifier, device, bf16=bf16, stages=stages)


def _probe(backbone: nn.Module, channels: int, size: int, who: str) -> tuple[int, int]:
    """Width of the features and number of maps, found by one forward so that no backbone has to state them.

    Raises:
        UserError: the backbone cannot take such images, as one with large strides or of a fixed size.
    """
    training = backbone.training
    try:
        with torch.no_grad():
            body = cast(Features, backbone.eval()(torch.zeros(1, channels, size, size)))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{who} cannot take images of {channels}x{size}x{size} ({reason}); choose another backbone or image size"
        ) from error
    backbone.train(training)
    return body.features.shape[1], len(body.maps)


def choose_device(name: DeviceName) -> torch.device:
    """The device to train on, set up to compute the same bits every time.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    device = torch.device("cuda" if cuda and name != "cpu" else "cpu")
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively rather than by way of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
