"""Runs are asked where they look in images for a class, as each step left them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwmfw.assembly.assemble import assemble_filled
from lwmfw.data.decoding import decoded_batches, unreadable_images
from lwmfw.data.images import Images
from lwmfw.data.pixels import CHUNK
from lwmfw.data.workers import kept_workers
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.prepare import prepare
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import UserError, did_you_mean, shown
from lwmfw.model.growing import evaluating
from lwmfw.model.outputs import Outputs
from lwmfw.recipe.settings import path_of
from lwmfw.record import checkpoint
from lwmfw.record.reading import RecordedRun
from lwmfw.showing.glances import Because, Explanation, Glance, Row, Scores, looked_at, with_drift
from lwmfw.using.predict import chosen_readout, image_files, ranked, seen_in_files

Place = os.PathLike[str] | str


@kept_workers()
@given_back()
def explain(
    runs: Sequence[Place] | Place,
    images: Sequence[Place] | Place = (),
    *,
    test: Sequence[int] = (),
    class_name: str = "",
    readout: str = "",
    device: DeviceName = "auto",
) -> list[Explanation]:
    """Where runs look in images, after each step of which they have kept the model; a notebook shows each as a figure.

    Args:
        runs: run directories.
        images: files.
        test: in their place, test images of the first run's data, by position in class order.
        class_name: what images are looked at for; by default a test image's own class, and else what most runs say
            at their end, of several that are said as often the one that was learned first.
        readout: who decides in every run; by default the first of its recipe.
        device: auto takes a GPU if there is one.

    Raises:
        UserError: a run, class, read-out or image is not there, or a backbone has no map to look at.
        CheckpointRefused: a checkpoint is damaged.
        RunFailed: a backbone or read-out failed.
    """
    opened = [OpenedRun(Path(path_of("run", run))) for run in _several(runs)]
    if not opened:
        raise UserError("no run is named; name a run directory, one that holds a resolved.toml")
    paths = [path_of("image", image) for image in _several(images)]
    if paths and test:
        raise UserError("--test: images are named too; leave one of them out")
    if not paths and not test:
        raise UserError("no image is named; name files, or test images of the run's data, as in --test 0")
    names = [name for run in opened for name in run.results.class_names]
    if class_name and class_name not in names:
        hint = did_you_mean(class_name, names) or f"; they know {', '.join(map(shown, dict.fromkeys(names)))}"
        raise UserError(f"--class: no run knows '{shown(class_name)}'{hint}")
    subjects = _tested(opened[0], test) if test else [Subject(str(path)) for path in paths]
    eyes = [Eye(run, name, readout, subjects, device) for run, name in zip(opened, run_names(opened), strict=True)]
    because: Because = "asked for" if class_name else "its own" if test else "said"
    wanted = [class_name or subject.label for subject in subjects]
    if because == "said":
        wanted = _said_by_most(eyes, len(subjects))
    rows = zip(*(eye.rows(wanted) for eye in eyes), strict=True)
    return [
        Explanation(subject.name, name, because, list(of_each))
        for subject, name, of_each in zip(subjects, wanted, rows, strict=True)
    ]


def parse_positions(text: str) -> list[int]:
    """Positions of test images, as in "0,5,17"; none of an empty text.

    Raises:
        UserError: it is something else.
    """
    if text and not re.fullmatch(r"[0-9]+(,[0-9]+)*", text, re.ASCII):
        raise UserError(f"--test: '{shown(text)}' are no positions of test images; write them as in 0,5,17")
    return [int(each[:18]) for each in text.split(",") if each]


def refuse_runs_in(places: Iterable[Path]) -> None:
    """See that folders of images hold no runs, whose own pictures would be taken for images.

    Raises:
        UserError: one does.
    """
    for place in places:
        for folder, inner, _ in os.walk(place):
            inner.sort()
            if RecordedRun(folder).exists:
                raise UserError(
                    f"{shown(str(place), 1000)}: is no run, and has one in it, {shown(folder, 1000)}; name runs "
                    "themselves, and folders of images apart from them"
                )


def _several(places: Sequence[Place] | Place) -> Sequence[Place]:
    return [places] if isinstance(places, str | os.PathLike) else places


@dataclass(frozen=True)
class Subject:
    """An image that is to be looked at.

    Attributes:
        name: its file, or what is said in its place.
        label: its class; empty: not known.
        pixels: (C, H, W), uint8, where it is in no file.
        path: of its file.
    """

    name: str
    label: str = ""
    pixels: Tensor | None = None
    path: str = ""


def _tested(opened: OpenedRun, positions: Sequence[int]) -> list[Subject]:
    """Test images of a run's data, by position in class order."""
    run = prepare(assemble_filled(opened.recipe), "cpu", filled=True, again=opened.path)
    test, names = run.data.test, run.results.class_names
    found = []
    for place in positions:
        if not 0 <= place < len(test):
            raise UserError(f"--test: there is no test image {place}; they are 0 to {len(test) - 1}, in class order")
        name, label = f"test image {place}", names[int(test.labels[place])]
        own = {"pixels": test.pixels[place]} if isinstance(test, Images) else {"path": str(test.paths[place])}
        found.append(Subject(name, label, **own))
    return found


def run_names(opened: Sequence[OpenedRun]) -> list[str]:
    """What tells runs apart: their recipes, or their directories where several are of one recipe."""
    recipes = [run.results.recipe for run in opened]
    return recipes if len(set(recipes)) == len(recipes) else [str(run.path) for run in opened]


class Eye:
    """A read-out of a run, which is asked about images as each step left it."""

    def __init__(
        self, opened: OpenedRun, name: str, readout: str, subjects: Sequence[Subject], device: DeviceName
    ) -> None:
        self.opened, self.name, self._device = opened, name, device
        self.readout = chosen_readout(opened, readout)
        backbone = opened.assembly.only("backbone")
        if "pooled" not in backbone.trait("offers"):
            what = f"its backbone {backbone.name} offers no pooled map to see attention at"
            raise UserError(f"{opened.path}: {what}; name a run whose backbone offers 'pooled'")
        self.steps = checkpoint.steps(opened.path / "checkpoints")
        self._images = seen_by(opened, subjects)
        self.probability = str(opened.assembly.of_kind("readout")[self.readout].trait("probability"))

    def rows(self, wanted: Sequence[str]) -> list[Row]:
        """A row for each image, looked at for its class of those that are wanted."""
        seen = list(zip(*(self.glances(step, wanted) for step in self.steps), strict=True))
        not_kept = [step.step for step in self.opened.results.steps if step.step not in self.steps]
        about = self.opened.path, self.name, self.readout, self.probability
        pixels = self._images.pixels
        return [Row(*about, own, with_drift(each), not_kept) for own, each in zip(pixels, seen, strict=True)]

    def glances(self, step: int, wanted: Sequence[str]) -> list[Glance]:
        """What the run as a step left it makes of each image, looked at for a class; an empty one: for none."""
        kept = self.opened.checkpoint(step)
        run = self.opened.as_left(self._device, kept)
        known = kept.results.class_names[: kept.results.steps[-1].seen]
        scores = run.assembly.of_kind("readout")[self.readout].method("scores")
        found: list[Glance] = []
        with told_in_words(run.assembly, self.opened.path), evaluating(run.model):
            for batch, _ in run.loader.evaluation_batches(self._images.to(run.device)):
                outputs = run.model(batch)
                names = wanted[len(found) : len(found) + len(batch)]
                said = ranked(scores(outputs.features).cpu(), known, len(known), probable=bool(self.probability))
                places = torch.tensor([known.index(name) if name in known else 0 for name in names], device=run.device)
                maps = self._looked_at(outputs, scores, places) if set(names) & set(known) else [None] * len(names)
                for each, name, attended in zip(said, names, maps, strict=True):
                    own = next((one for one in each if one.name == name), None)
                    found.append(Glance(step, each[0] if each else None, own, attended if own else None))
        return found

    def _looked_at(self, outputs: Outputs, scores: Scores, classes: Tensor) -> Tensor:
        who = self.opened.path
        if outputs.pooled is not None and outputs.pooled[0, 0].numel() == 1:
            size = "x".join(map(str, self._images.pixels.shape[2:]))
            raise UserError(
                f"{who}: the pooled map of its backbone has one position for images of {size}, and nowhere else to "
                "look; name a run on larger images"
            )

        def asked(features: Tensor) -> Tensor:
            answer = scores(features)
            if not answer.requires_grad:
                raise UserError(
                    f"{who}: the scores of the read-out {self.readout} have no gradient, so what they hang on is not "
                    "known; name another with --readout"
                )
            return answer

        maps = looked_at(outputs, asked, classes).cpu()
        if not maps.isfinite().all():
            raise UserError(f"{who}: the gradient of the read-out {self.readout} is not finite; name another image")
        return maps


def seen_by(opened: OpenedRun, subjects: Sequence[Subject]) -> Images:
    """Images as a run sees them, before normalisation.

    Raises:
        UserError: one cannot be read, or they are in no files and the run sees images of another size.
    """
    shape = opened.preprocessing
    if any(subject.pixels is None for subject in subjects):
        paths = [subject.path or subject.name for subject in subjects]
        files = image_files(paths, seen_in_files(opened))
        unreadable = unreadable_images(paths, values=files.values, max_pixels=files.max_pixels)
        for path, reason in unreadable.items():
            raise UserError(f"{shown(path, 1000)}: cannot be read ({reason}); name another file")
        batches = decoded_batches(files, torch.arange(len(files)).split(CHUNK))
        return Images(torch.cat(list(batches)), files.labels)
    pixels = torch.stack([subject.pixels for subject in subjects if subject.pixels is not None])
    wanted = (shape.channels, shape.size, shape.size)
    if pixels.shape[1:] != wanted:
        sizes = " and ".join("x".join(map(str, each)) for each in (wanted, pixels.shape[1:]))
        raise UserError(f"{opened.path}: sees other images than the first run ({sizes}); name runs on one data set")
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def _said_by_most(eyes: Sequence[Eye], count: int) -> list[str]:
    """For each image the class that most runs say it is of at their end; of several, the one learned first."""
    learned = [name for eye in eyes for name in eye.opened.results.class_names]  # in the first run's order
    found = []
    for said in zip(*(eye.glances(eye.steps[-1], [""] * count) for eye in eyes), strict=True):
        votes = Counter(each.says.name for each in said if each.says)
        found.append(min(votes, key=lambda name: (-votes[name], learned.index(name)), default=""))
    return found
