"""Proof that learning piece by piece was learning at once: statistics recomputed over all images, digests compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.evaluate import digest
from lwmfw.engine.opened import OpenedRun
from lwmfw.using.sums import check_exact, difference, learned_images, summed


@dataclass(frozen=True)
class Verdict:
    """What came of one read-out.

    Attributes:
        readout: its name.
        kept: SHA-256 of what the run holds.
        found: SHA-256 of what all images at once give.
        images: how many the run has taken in.
        difference: the largest, in units of the largest value; 0 where the digests are one.
    """

    readout: str
    kept: str
    found: str
    images: int
    difference: float

    @property
    def equal(self) -> bool:
        """Whether they are the same to the bit."""
        return self.kept == self.found


@given_back()
def verified(
    opened: OpenedRun, data: Sequence[Path], device: DeviceName, tell: Callable[[str], None]
) -> tuple[list[Verdict], int]:
    """A verdict on each read-out from sums, and over how many images.

    Raises:
        UserError: the run has no exact read-out, or images are missing or not alike.
    """
    check_exact(opened)
    images = learned_images(opened, data)
    tell(f"{opened.path}: computing the features of {len(images)} images")
    kept = opened.checkpoint().components
    verdicts = []
    for name, state in summed(opened, images, device).items():
        counted = int(kept[name]["counts"].sum())
        verdicts.append(Verdict(name, digest(kept[name]), digest(state), counted, difference(kept[name], state)))
    return verdicts, len(images)
