"""A run that goes on otherwise than it was computed so far: what differs is named, and refused unless it is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lwmfw.engine.facts import other_classes, other_files, other_images, refusal
from lwmfw.engine.threads import use_threads
from lwmfw.errors import CheckpointRefused, UserError, did_you_mean, shown
from lwmfw.record.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lwmfw.engine.run import Run

KEYS = ("arithmetic", "data", "plugins", "torch")
"""What may be allowed to differ; the recipe and the classes may not."""


@dataclass(frozen=True)
class Drift:
    """Something in which a run differs from what was kept of it.

    Attributes:
        key: of KEYS, or "threads", whose number is only changed by whoever says so.
        was: when it was kept.
        now: here.
        said: what is wrong and what to do.
    """

    key: str
    was: Any
    now: Any
    said: str = ""


def parse_drift(keys: Collection[str]) -> frozenset[str]:
    """What is allowed to differ.

    Raises:
        UserError: a key that is none.
    """
    for key in [keys] if isinstance(keys, str) else keys:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS) or f"; it may be {', '.join(KEYS)}"
            raise UserError(f"--allow-drift {shown(str(key))}: cannot be allowed{hint}")
    return frozenset([keys] if isinstance(keys, str) else keys)


def check_alike(run: Run, kept: Checkpoint) -> None:
    """See that a run is computed as it was kept, for the same bits, and on what it has learned from.

    Raises:
        CheckpointRefused: it would be computed in another way, or on other images.
    """
    _check_classes(run, kept)
    for drift in (*_of_data(run, kept), *_of_arithmetic(run, kept)):
        raise CheckpointRefused(drift.said)
    use_threads(run.recipe.training.threads or kept.facts["threads"])


def drift_of(run: Run, kept: Checkpoint, step: int) -> list[dict[str, Any]]:
    """In what a run goes on in a step otherwise than it was kept, as results.json states it.

    Raises:
        CheckpointRefused: something differs that is not allowed to.
    """
    _check_recipe(run, kept)
    _check_classes(run, kept)
    found = [*_of_data(run, kept), *_of_arithmetic(run, kept), *_of_software(run, kept)]
    for drift in found:
        if drift.key not in run.allow_drift:
            raise CheckpointRefused(f"{drift.said}, or go on all the same with --allow-drift {drift.key}")
    threads = run.recipe.training.threads or kept.facts["threads"]
    use_threads(threads)
    found += [Drift("threads", kept.facts["threads"], threads)] * (threads != kept.facts["threads"])
    return [{"step": step, "key": drift.key, "was": drift.was, "is": drift.now} for drift in found]


def _check_recipe(run: Run, kept: Checkpoint) -> None:
    was, now = kept.facts.get("settings", {}), run.settings
    for key in sorted(was.keys() | now.keys()) if was else ():
        if was.get(key) != now.get(key):
            raise CheckpointRefused(
                f"{kept.path}: is of another recipe, {key} was {shown(str(was.get(key, 'not there')))}, is "
                f"{shown(str(now.get(key, 'not there')))}; put back the checkpoints of this run, or start anew"
            )


def _check_classes(run: Run, kept: Checkpoint) -> None:
    others = other_classes(run, kept)
    if others:
        raise CheckpointRefused(refusal(kept.path.parents[1], run.assembly.resolved, others))


def _of_data(run: Run, kept: Checkpoint) -> Iterator[Drift]:
    then, now = kept.results, run.results
    images, files = other_images(run, kept), other_files(then.files, now.files)
    if images or files:
        told = refusal(kept.path.parents[1], run.assembly.resolved, [*images, *files.values()])
        if images and then.data and now.data:
            yield Drift("data", then.data["sha256"], now.data["sha256"], told)
        for key in files:
            yield Drift("data", f"{key} {then.files[key]}", f"{key} {now.files[key]}", told)


def _of_arithmetic(run: Run, kept: Checkpoint) -> Iterator[Drift]:
    was, now = kept.facts["arithmetic"], run.arithmetic
    if was != now:
        said = f"{kept.path}: was computed in {was}, here it would go on in {now}"
        yield Drift("arithmetic", was, now, f"{said}; resume where it was started, or start anew")


def _of_software(run: Run, kept: Checkpoint) -> Iterator[Drift]:
    """Other versions of torch and of distributions; plug-in files go by their digests."""
    pairs = {(was, run.results.providers.get(name, was)) for name, was in kept.results.providers.items()}
    changed = sorted(pair for pair in pairs if pair[0] != pair[1] and " sha256:" not in "".join(pair))
    torch_was = kept.facts.get("torch", torch.__version__)
    told = [("plugins", was, now, was, now) for was, now in changed]
    if torch_was != torch.__version__:
        told.append(("torch", torch_was, str(torch.__version__), f"torch {torch_was}", f"torch {torch.__version__}"))
    for key, was, now, before, here in told:
        said = f"{kept.path}: was computed with {before}, here it would go on with {here}"
        yield Drift(key, was, now, f"{said}; install what it was begun with, or start anew")
