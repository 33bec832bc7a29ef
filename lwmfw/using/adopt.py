"""A model that was trained anywhere as a finished run of one step."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from lwmfw import loop
from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.parts import Assembly
from lwmfw.data.arrange import arrange
from lwmfw.data.images import DataSet
from lwmfw.data.loader import Preprocessing
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName, choose_device, grow, new_model
from lwmfw.engine.first_step import FirstStep
from lwmfw.engine.opened import no_images
from lwmfw.engine.origin import labels_in, source
from lwmfw.engine.prepare import providers_of, run_of
from lwmfw.engine.run import Run
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import UserError, shown
from lwmfw.recipe import shipped
from lwmfw.recipe.load import Resolved, load_recipe, override
from lwmfw.recipe.scenario import Step
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.files import bounded
from lwmfw.record.results import Results
from lwmfw.using.keep import keep
from lwmfw.using.weights import Head, find_head, unwrapped_weights

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Adoption:
    """What is adopted.

    Attributes:
        weights: their file.
        classes: a file of names, one a line, in the order of the network's outputs; None: those of `data`.
        data: folder of class folders with some images of each; None: there is none.
        recipe: file or name of the recipe of the run.
        settings: of the recipe.
    """

    weights: Path
    classes: Path | None
    data: Path | None
    recipe: str
    settings: Mapping[str, object]


@given_back()
def adopted(wanted: Adoption, out: Path | None, device: DeviceName, tell: Tell) -> Run:
    """A finished run, recorded.

    Raises:
        UserError: the weights do not fit the network, or nothing would know the classes.
    """
    tensors, said = unwrapped_weights(wanted.weights)
    for line in said:
        tell(f"{wanted.weights}: {line}")
    given = load_recipe(shipped.locate(wanted.recipe), dict(wanted.settings) | _data(wanted.data))
    with tempfile.TemporaryDirectory(prefix="lwmfw-") as folder:
        filled, width = _filled(given, wanted.weights, tensors, Path(folder))
    head, names = find_head(tensors, filled.state_dict(), width), _names(wanted.classes)
    loaded = _loaded(given)
    names = names or loaded.class_names
    if not names:
        raise UserError("--classes: is missing, and there is no --data to name them; give one of them")
    if head is not None and len(head.weight) != len(names):
        tell(
            f"{wanted.weights}: left out its head, which is of {len(head.weight)} classes; there are {len(names)} names"
        )
        head = None
    with wanted.weights.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    origin = {"run": str(wanted.weights.resolve()), "checkpoint": sha256, "made_by": "adopt"}
    decide = _deciding(given, wanted, bool(loaded.class_names), head is not None)
    resolved = override(given, {"origin": origin, "readouts": decide, "training.first.epochs": 0})
    run = _run(resolved, loaded, names, device)
    weights = _of_classes(run, filled, head)
    kept = Checkpoint(wanted.weights, weights, {}, Results(run.recipe.name, run.recipe.seed, [], [], {}), {})
    run.first_step = FirstStep(kept, {"weights": wanted.weights.name, "sha256": sha256})
    with told_in_words(run.assembly, wanted.weights):
        loop.train(run)
    keep(run, out)
    return run


def _data(folder: Path | None) -> dict[str, object]:
    return {"data.root": "" if folder is None else str(folder)}


def _names(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        names = [line.strip() for line in bounded(file).decode().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); name a text file with a class a line") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        fault = f"names {shown(twice)} twice" if twice else "names no class"
        raise UserError(f"{file}: {fault}; write each class on a line of its own")
    return names


def _filled(given: Resolved, named: Path, tensors: Mapping[str, Tensor], folder: Path) -> tuple[nn.Module, int]:
    """The backbone with its weights, which go to it by a file in a folder, and the width of its features."""
    option, file = "weights" in given.tables()["backbone"], folder / "weights.safetensors"
    if option:
        safetensors.torch.save_file(dict(tensors), file)
        given = override(given, {"backbone.weights": str(file)})
    assembly = assemble(given)
    shape = Preprocessing.of(_loaded(override(given, {"data.root": ""})))
    try:
        with told_in_words(assembly, folder):
            model = new_model(assembly, shape.channels, shape.size, choose_device("cpu"))
    except UserError as error:
        raise UserError(str(error).replace(f"backbone.weights: {file}", f"--weights: {named}")) from error
    assert model.form is not None, "found when it was built"  # noqa: S101
    if not option:
        _load(model.backbone, tensors)
    return model.backbone, model.form.width


def _load(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill a network that has no option for weights; what it has no place for is its former head."""
    own = backbone.state_dict()
    needed = [name for name in own if not name.endswith("num_batches_tracked")]  # which older files lack
    wrong = [name for name in needed if name not in tensors or tensors[name].shape != own[name].shape]
    if wrong:
        raise UserError(
            f"--weights: does not fit the backbone: {wrong[0]} is missing or of another shape; name another"
        )
    backbone.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)


def _loaded(given: Resolved) -> DataSet:
    assembly = assemble(given)
    with told_in_words(assembly, Path.cwd()):
        loaded: DataSet = assembly.method("data", "load")()
    return loaded


def _deciding(given: Resolved, wanted: Adoption, images: bool, head: bool) -> list[dict[str, Any]]:
    """The tables of those read-outs that know the classes."""
    kept = [table for table, exact in assemble(given).readouts() if (images if exact else head)]
    if not kept:
        raise UserError(
            f"{wanted.weights}: nothing would know the classes: the file has no head for them, and there are no "
            "images; name the classes of its head with --classes, or images with --data"
        )
    return kept


def _run(resolved: Resolved, loaded: DataSet, names: Sequence[str], device: DeviceName) -> Run:
    """The run before its only step, with the images there are."""
    unknown = next((name for name in loaded.class_names if name not in names), None)
    if unknown:
        raise UserError(f"--data: class '{shown(unknown)}' is none of --classes; rename the folder or name the class")
    if loaded.class_names:
        order = labels_in(loaded, names)
        data = arrange(loaded, order, resolved.recipe.evaluation.validation, resolved.recipe.seed, len(order))
    else:
        data = no_images(Preprocessing.of(loaded), list(names))
    assembly: Assembly = assemble(resolved)
    recipe, classes = resolved.recipe, range(len(names))
    results = Results(recipe.name, recipe.seed, list(classes), list(names), providers_of(assembly))
    results.sources = [source(resolved, data.train, names)]
    return run_of(assembly, choose_device(device), data, [Step(1, classes, classes, 1)], results)


def _of_classes(run: Run, backbone: nn.Module, head: Head | None) -> dict[str, Tensor]:
    """The state of a run's model whose backbone and, if there is one, head are filled."""
    whole = copy.deepcopy(run.model).cpu()
    grow(run.assembly, whole, run.steps[0])
    whole.backbone.load_state_dict(backbone.state_dict())
    if head is not None:
        own = whole.classifier.state_dict()
        if {name: value.shape for name, value in own.items()} != {"weight": head.weight.shape, "bias": head.bias.shape}:
            raise UserError('[classifier]: has no place for a head of weights and biases; choose use = "linear"')
        whole.classifier.load_state_dict({"weight": head.weight, "bias": head.bias})
    return {name: value.detach() for name, value in whole.state_dict().items()}
