"""Decisions of a run that has ended about images in files.

An image goes through what the run's own test images went through; one of a run whose images were of their size already
is cut square out of its middle and resized to that.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwmfw.data.decoding import unreadable_images
from lwmfw.data.images import ImageFiles
from lwmfw.data.listing import IMAGE_SUFFIXES, images_below, left_out_words
from lwmfw.data.loader import Preprocessing
from lwmfw.data.workers import kept_workers
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import UserError, did_you_mean, harmless, shown
from lwmfw.model.growing import evaluating

PART = 1024  # files at a time, which are looked through again where one of them cannot be read

Tell = Callable[[str], None]
Seen = Callable[[int], None]
Table = tuple[list[str], list[list[str]]]


class Said(NamedTuple):
    """What a read-out says of an image and a class; `probability` is None where its scores are none."""

    name: str
    score: float
    probability: float | None


@dataclass(frozen=True)
class Decision:
    """What a read-out says of an image.

    Attributes:
        image: the path of its file.
        classes: the best, best first.
    """

    image: str
    classes: list[Said]


def ranked(scores: Tensor, names: Sequence[str], top: int, *, probable: bool) -> list[list[Said]]:
    """The best classes of each image, best first, without those of which nothing is known: whose score is not finite.

    Args:
        scores: (B, classes).
        names: of the classes.
        top: how many, at most.
        probable: whether the softmax of the scores is a probability.
    """
    known = scores.isfinite()
    scores = scores.double().masked_fill(~known, -torch.inf)
    probabilities = scores.softmax(1)
    best, places = scores.topk(min(top, scores.shape[1]), 1)
    rows = zip(best.tolist(), places.tolist(), probabilities.gather(1, places).tolist(), strict=True)
    return [
        [Said(names[c], s, p if probable else None) for s, c, p in zip(*row, strict=True) if s > -torch.inf]
        for row in rows
    ]


def chosen_readout(opened: OpenedRun, name: str = "") -> str:
    """The name of one of a run's read-outs: the first of its recipe if none is asked for.

    Raises:
        UserError: the run has none of that name, or there is no run.
    """
    known = [each.name for each in opened.recipe.chosen if each.component.kind == "readout"]
    if name and name not in known:
        hint = did_you_mean(name, known) or f"; choose of {', '.join(known)}"
        raise UserError(f"--readout: {opened.path} has no read-out '{shown(name)}'{hint}")
    return name or known[0]


def images_of(places: Iterable[Path]) -> list[str]:
    """The files that are named, and the images in the folders that are, sorted within each; the rest is told on stderr.

    Raises:
        UserError: a place is missing, or a folder has no images or cannot be read.
    """
    found = []
    for place in places:
        if os.path.isdir(place):
            found += _images_in(place)
        elif os.path.exists(place):
            found.append(str(place))
        else:
            hint = did_you_mean(place.name, _beside(place)) or "; name an image, or a folder with images"
            raise UserError(f"{shown(str(place), 1000)}: no such file or folder{hint}")
    return found


def _images_in(folder: Path) -> list[str]:
    left_out: Counter[str] = Counter()
    found = images_below(folder, left_out)
    listed = left_out_words(left_out)
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        only = f", only {listed}" if listed else ""
        raise UserError(f"{folder}: has no images ({known}){only}; name another folder, or the files")
    if listed:
        print(harmless(f"{folder}: left out: {listed}; convert or rename what is an image"), file=sys.stderr)
    return found


def _beside(place: Path) -> list[str]:
    try:
        return [path.name for path in place.parent.iterdir()]
    except OSError:
        return []


class Predictor:
    """A read-out of a run that has ended, which is asked about images.

    Attributes:
        readout: its name.
        probability: what the softmax of its scores is, in words; empty: its scores are no probabilities.
    """

    def __init__(self, opened: OpenedRun, readout: str = "", device: DeviceName = "auto") -> None:
        self.readout = chosen_readout(opened, readout)
        self._shape, self._path = seen_in_files(opened), opened.path
        self._names = opened.class_names
        self._run = opened.as_left(device)
        self._part = self._run.assembly.of_kind("readout")[self.readout]
        self.probability: str = self._part.trait("probability")

    @kept_workers()
    @given_back()
    def decisions(self, paths: Sequence[str], top: int, tell: Tell, seen: Seen) -> list[Decision]:
        """What the read-out says of each image that can be read.

        Args:
            paths: of their files.
            top: classes of each, at most.
            tell: is given a line about each file that cannot be read, if it is one of several.
            seen: is told now and then how many files are done.

        Raises:
            UserError: none can be read.
            RunFailed: backbone or read-out failed.
        """
        found, told = [], tell if len(paths) > 1 else _refuse
        with told_in_words(self._run.assembly, self._path):
            for first in range(0, len(paths), PART):

                def on(done: int, first: int = first) -> None:
                    seen(first + done)

                found += self._of_readable(paths[first : first + PART], top, told, on)
        if not found:
            raise UserError(f"none of {len(paths)} images can be read; name others")
        return found

    def _of_readable(self, paths: Sequence[str], top: int, tell: Tell, seen: Seen) -> list[Decision]:
        try:
            return self._of(paths, top, seen)
        except UserError:
            unreadable = unreadable_images(paths, values=self._shape.values, max_pixels=self._shape.max_pixels)
            if not unreadable:
                raise
        for path, reason in unreadable.items():
            tell(f"{shown(path, 1000)}: cannot be read ({reason}); replace or remove the file")
        return self._of([path for path in paths if path not in unreadable], top, seen)

    def _of(self, paths: Sequence[str], top: int, seen: Seen) -> list[Decision]:
        classes: list[list[Said]] = []
        images = image_files(paths, self._shape).to(self._run.device)
        scores, probable = self._part.method("scores"), bool(self.probability)
        with evaluating(self._run.model):
            for batch, _ in self._run.loader.evaluation_batches(images):
                found = scores(self._run.model(batch).features)
                classes += ranked(found.cpu(), self._names, top, probable=probable)
                seen(len(classes))
        return [Decision(path, said) for path, said in zip(paths, classes, strict=True)]


def _refuse(message: str) -> None:
    raise UserError(message)


def seen_in_files(opened: OpenedRun) -> Preprocessing:
    """How a run sees images that lie in files.

    Raises:
        UserError: it sees such as no file has.
    """
    shape = opened.preprocessing
    if shape.channels not in (1, 3):
        what = f"sees images of {shape.channels} channels, and files have 1 or 3"
        raise UserError(f"{opened.path}: {what}; name another run")
    return shape


def image_files(paths: Sequence[str], shape: Preprocessing) -> ImageFiles:
    """Files as a run sees images; all have label 0."""
    labels = torch.zeros(len(paths), dtype=torch.int64)
    resize, read = shape.resize or shape.size, vars(shape.reading)
    return ImageFiles(paths, labels, shape.size, resize, channels=shape.channels, **read)


def decision_rows(decisions: Sequence[Decision]) -> Table:
    """Header and rows of a table, a row for each image and class; empty where there is no probability."""
    rows = [
        [each.image, str(rank), said.name, f"{said.score:.6g}", _share(said.probability)]
        for each in decisions
        for rank, said in enumerate(each.classes, 1)
    ]
    return ["image", "rank", "class", "score", "probability"], rows


def _share(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.6g}"


def decisions_json(decisions: Sequence[Decision], predictor: Predictor) -> list[dict[str, Any]]:
    """The same as plain values for JSON."""
    return [
        {
            "image": each.image,
            "readout": predictor.readout,
            "probability_is": predictor.probability or None,
            "classes": [{"class": s.name, "score": s.score, "probability": s.probability} for s in each.classes],
        }
        for each in decisions
    ]
