"""Networks and the device they are on."""

from __future__ import annotations

import os
import re
from typing import Literal, get_args

import torch
from torch import nn

from lwmfw.assembly.calls import Attached
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import UserError, WrongAnswer, describe, is_out_of_memory, one_line, quoted
from lwmfw.model.growing import Model, build_model, check_state, probed
from lwmfw.model.outputs import Form
from lwmfw.recipe.scenario import Step
from lwmfw.rng import derive_seed

DeviceName = Literal["auto", "cpu", "cuda"]


def new_model(assembly: Assembly, channels: int, size: int, device: torch.device, draw: int = 0) -> Model:
    """The model for images of a size before its first class; initial weights are a function of the seed and `draw`."""
    recipe = assembly.resolved.recipe
    torch.manual_seed(derive_seed(recipe.seed, "model", *[draw] * bool(draw)))
    backbone: nn.Module = assembly.method("backbone", "build")(channels)
    form = _probe(backbone, channels, size, assembly.only("backbone"))
    classifier: nn.Module = assembly.method("classifier", "build")(form.width)
    _check_offers(assembly, form, classifier)
    check_state(Model(backbone, classifier))
    precision = recipe.training.precision
    bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    return build_model(backbone, classifier, device, bf16=bf16, form=form, image=(channels, size, size))


def grow(assembly: Assembly, model: Model, step: Step) -> None:
    """Have a model take in the classes of a step: its network by the hook grow_model, then its classifier."""
    device = model.device
    if assembly.grows:
        replacement: nn.Module | None = assembly.hook.grow_model(step=step, model=model, rng=assembly.rng)
        if replacement is not None:
            model.backbone = replacement
        width = model.width
        model.reshaped(device)
        if model.width != width and "features" in assembly.only("backbone").trait("offers"):
            what = (
                f"offers 'features', and has {model.width} of them after {width}; offer them where all steps have alike"
            )
            raise WrongAnswer("backbone", what)
    model.grow(len(step.new_classes))
    model.to(device)


def _probe(backbone: nn.Module, channels: int, size: int, part: Attached) -> Form:
    """Width of the features, number of maps and so on, found by one forward so that no backbone has to state them.

    Raises:
        UserError: the backbone cannot take such images, as one with large strides or of a fixed size.
        WrongAnswer: it does not answer as a backbone has to.
        RunFailed: it fails otherwise.
    """
    who = f"{part.provider}: {part.name}"
    try:
        return probed(backbone, torch.zeros(1, channels, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{who} cannot take images of {channels}x{size}x{size} ({one_line(error)}); "
            "choose another backbone or image size"
        ) from error
    except WrongAnswer:
        raise
    except (Exception, SystemExit) as error:
        raise part.failure(f"{who} raised {describe(error)} from forward") from error


def _check_offers(assembly: Assembly, form: Form, classifier: nn.Module) -> None:
    """Hold backbone and classifier to what they offer: components of the recipe count on it.

    Raises:
        WrongAnswer: something that is offered is not there.
    """
    offered = assembly.only("backbone").trait("offers")
    for offer in ("maps", "raw_maps", "pooled"):
        if offer in offered and not getattr(form, offer):
            raise WrongAnswer("backbone", f"offers '{offer}', but forward returned none; return them or offer less")
    offered = assembly.only("classifier").trait("offers")
    for method in sorted({"similarities", "resize"} & offered):
        if not callable(getattr(classifier, method, None)):
            raise WrongAnswer("classifier", f"offers '{method}', but has no such method; define it or offer less")
    for offer, names in (("rows", ("weight", "bias")), ("heads", ("heads",))):
        lacking = [name for name in names if not hasattr(classifier, name)]
        if offer in offered and lacking:
            raise WrongAnswer("classifier", f"offers '{offer}', but has no {lacking[0]}; define it or offer less")


def choose_device(name: DeviceName) -> torch.device:
    """The device to train on, set up to compute the same bits every time.

    Raises:
        UserError: cuda is asked for and there is none, or the name is of no device.
    """
    if name not in get_args(DeviceName):
        card = re.fullmatch(r"cuda:(\d+)", str(name))
        remedy = f"write cuda, and set CUDA_VISIBLE_DEVICES={card[1]} before the start" if card else "write one of them"
        raise UserError(f"--device: should be auto, cpu or cuda, got {quoted(name)}; {remedy}")
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    device = torch.device("cuda" if cuda and name != "cpu" else "cpu")
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # it would also write into all memory before its first use, half of what is launched in an update
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively rather than by way of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
