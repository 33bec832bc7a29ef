"""What tests are made with: tiny runs, and pairs of a model and its predecessor."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

from lwmfw.api import execute
from lwmfw.assembly.assemble import assemble
from lwmfw.assembly.contract import check_hooks
from lwmfw.components import Component, Provider, trait
from lwmfw.data.images import Batch
from lwmfw.engine.run import Run
from lwmfw.errors import UserError
from lwmfw.model.growing import Model, build_model, frozen_copy
from lwmfw.model.outputs import Features, Outputs
from lwmfw.recipe.catalogue import Catalogue, discover, record_fault
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.scenario import Step
from lwmfw.recipe.text import merge
from lwmfw.record.results import Results

CLASSES = 4

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "data": {"use": "synthetic", "classes": CLASSES, "train_per_class": 16, "test_per_class": 8, "size": 8},
    "scenario": {"first": 2, "increment": 2},
    "backbone": {"use": "resnet20", "width": 4},
    "classifier": {"use": "linear"},
    "objective": {"use": "bce"},
    "training": {"epochs": 1, "batch_size": 16, "lr": 0.1, "precision": "fp32"},
    "observers": [],
    "console": False,
}
"""A recipe of two steps on images of 8x8 that runs in a fraction of a second."""


@dataclass(frozen=True)
class TinyRun:
    """What a tiny run came to.

    Attributes:
        results: of all steps.
        terms: step -> term -> mean over its last epoch.
        path: the run directory.
        run: the run itself, with its model.
    """

    results: Results
    terms: dict[int, dict[str, float]]
    path: Path
    run: Run


def tiny_recipe(overrides: Mapping[str, Any], folder: Path) -> Path:
    """Write the tiny recipe with tables of `overrides` merged in; returns the file."""
    tables = merge(TINY, dict(overrides))
    path = folder / f"{tables['name']}.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


def tiny_run(
    overrides: Mapping[str, Any] | None = None, folder: Path | None = None, *, components: Iterable[Component] = ()
) -> TinyRun:
    """Run the tiny recipe on the CPU.

    Args:
        overrides: tables merged into the recipe.
        folder: an empty folder; the run directory is `folder/run`. Left out: one that is gone with what is returned.
        components: records that the recipe can name beside what is installed, such as `Penalty("mine", Mine)`.

    Raises:
        LwmfwError: as `lwmfw.run`.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="lwmfw-"))
    try:
        components, files = list(components), [place / file for file in (overrides or {}).get("plugins", ())]
        catalogue = beside_installed(components, files) if components else None
        resolved = load_recipe(tiny_recipe(overrides or {}, place), catalogue=catalogue)
        run = execute(assemble(resolved), place / "run", "cpu", "auto")
        logged = place / "run" / "metrics.jsonl"  # missing where nothing is trained
        rows = [json.loads(line) for line in logged.read_text().splitlines()] if logged.exists() else []
        terms = {row["step"]: row["terms"] for row in rows}
        told = TinyRun(run.results, terms, place / "run", run)
    except BaseException:
        if folder is None:
            shutil.rmtree(place)
        raise
    if folder is None:
        weakref.finalize(told, shutil.rmtree, place, ignore_errors=True)
    return told


def beside_installed(components: Iterable[Component], files: Sequence[Path] = ()) -> Catalogue:
    """What is installed, and in plug-in files, and records of components that are neither."""
    catalogue = discover(files)
    known = catalogue.components
    catalogue.components += [provided(c) for c in components if not any(_is(c, other) for other in known)]
    return catalogue


def _is(component: Component, other: Component) -> bool:
    """Whether a record, which need not say from where it comes, is one of the catalogue's."""
    return replace(component, provider=component.provider if component.provider.name else other.provider) == other


def provided(component: Component) -> Component:
    """A record as a catalogue holds it; it comes from "test" if it does not say from where.

    Raises:
        UserError: no catalogue would hold it.
    """
    known = component if component.provider.name else replace(component, provider=Provider("test"))
    fault = record_fault(known)
    if fault:
        raise UserError(f"{known.provider}: {fault}")
    return known


class _Body(nn.Module):
    """A small network that offers everything a penalty can need."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6))

    def forward(self, images: torch.Tensor) -> Features:
        raw_first = self.first(images)
        first = raw_first.relu()
        raw_second = self.second(first)
        second = raw_second.relu()
        return Features(second.mean((2, 3)), [first, second], [raw_first, raw_second], second)


class Head(nn.Module):
    """A linear classifier that grows and is resized."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))

    def grow(self, classes: int) -> None:
        new = torch.randn(classes, self.weight.shape[1], dtype=self.weight.dtype)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), new]))

    def resize(self, features: int) -> None:
        kept = self.weight.detach()[:, :features]
        new = torch.randn(len(kept), features - kept.shape[1], dtype=kept.dtype)
        self.weight = nn.Parameter(torch.cat([kept, new], 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.weight.T

    similarities = forward


@dataclass(frozen=True)
class Pair:
    """A model, its predecessor, and what both say of one batch, in float64.

    Attributes:
        step: two old classes, two new ones.
        batch: two images of each class; those of old ones are exemplars.
    """

    model: Model
    old_model: Model
    step: Step
    batch: Batch
    new: Outputs
    old: Outputs

    def subset(self, chosen: torch.Tensor | slice) -> Pair:
        """The same models on some images of the batch, the model in the mode it is in."""
        images = self.batch.images[chosen]
        batch = Batch(images, self.batch.labels[chosen], self.batch.from_memory[chosen])
        return Pair(self.model, self.old_model, self.step, batch, self.model(images), _old(self.old_model, images))


def outputs_pair(seed: int = 0, *, head: nn.Module | None = None, equal: bool = False, training: bool = False) -> Pair:
    """A new and an old model and their outputs for 8 images of 3x8x8.

    Args:
        seed: of weights and images.
        head: a classifier for 6 features without classes; by default a linear one.
        equal: whether both have the same weights for the old classes.
        training: whether the new model is in training mode; the old one never is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(_Body(), head or Head(), torch.device("cpu"), bf16=False)
        model.grow(2)
        model.double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_var is not None
                assert module.running_mean is not None
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.3)
        # folding BatchNorm rounds, and equal is to mean equal bits
        old_model = copy.deepcopy(model).eval().requires_grad_(False) if equal else frozen_copy(model)
        if not equal:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
        model.grow(2)
        model.double().train(training)
        images = torch.randn(8, 3, 8, 8, dtype=torch.float64)
        labels = torch.tensor([2, 0, 3, 1] * 2)
    batch = Batch(images, labels, labels < 2)
    step = Step(2, range(2, 4), range(4), 2)
    return Pair(model, old_model, step, batch, model(images), _old(old_model, images))


def _old(model: Model, images: torch.Tensor) -> Outputs:
    """The old model's outputs with the graph that "old_graph" stands for."""
    return model(images.detach().requires_grad_()).detached()  # type: ignore[no-any-return]


def penalty_terms(component: Any, pair: Pair) -> dict[str, torch.Tensor]:
    """What a penalty returns for a pair, each hook argument given by name."""
    method = check_hooks(component, "test", "penalty", trait(component, "needs")).get("compute_penalty")
    if method is None:
        return {}
    offered = {
        "step": pair.step,
        "batch": pair.batch,
        "new": pair.new,
        "old": pair.old,
        "model": pair.model,
        "rng": torch.Generator().manual_seed(0),
        "name": "examined",
    }
    code = method.__func__.__code__  # type: ignore[attr-defined]
    return method(**{name: offered[name] for name in code.co_varnames[1 : code.co_argcount]}) or {}
