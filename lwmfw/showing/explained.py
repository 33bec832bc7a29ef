"""Where runs look, in lines: a table, plain values for JSON, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lwmfw.errors import shown
from lwmfw.showing.glances import Explanation, Glance, Row
from lwmfw.using.predict import Said


def what_is_missing(explanations: Sequence[Explanation]) -> list[str]:
    """Lines about the steps that runs have not kept, and about images that are said to be of a class that came late."""
    said = []
    for row in explanations[0].rows:
        if row.not_kept:
            listed = f"step{'s' * (len(row.not_kept) > 1)} {', '.join(map(str, row.not_kept))}"
            who = shown(str(row.run), 1000)
            said.append(f"{who}: keeps no model of {listed}; `lwmfw run --keep-steps` keeps those of all")
    for each in explanations:
        unknown = [g.step for row in each.rows for g in row.glances if g.attention is None]
        if each.because == "said" and unknown:
            what = f"is said to be '{shown(each.wanted)}', which is not known after step {max(unknown)}"
            said.append(f"{shown(each.image, 1000)}: {what}; name a class that is with --class")
    return said


def explanation_rows(explanations: Sequence[Explanation]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: an image, a run and a step a line."""
    rows = [
        [each.image, each.wanted, row.name, str(glance.step), *_told(glance, row)]
        for each in explanations
        for row in each.rows
        for glance in row.glances
    ]
    return ["image", "looked at for", "run", "step", "score", "probability", "l1", "says"], rows


def _told(glance: Glance, row: Row) -> Iterator[str]:
    own = glance.own
    yield f"{own.score:.6g}" if own else ""
    yield f"{own.probability:.6g}" if own and own.probability is not None else ""
    yield f"{glance.l1:.4f}" if glance.l1 is not None else ""
    yield glance.says.name if glance.says else ""


def explanations_json(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """All there is of them as plain values for JSON, maps with five digits."""
    return [
        {
            "image": each.image,
            "class": each.wanted,
            "class_is": each.because,
            "runs": [
                {
                    "run": str(row.run),
                    "name": row.name,
                    "readout": row.readout,
                    "probability_is": row.probability or None,
                    "steps_not_kept": row.not_kept,
                    "steps": [_plain(glance) for glance in row.glances],
                }
                for row in each.rows
            ],
        }
        for each in explanations
    ]


def _plain(glance: Glance) -> dict[str, Any]:
    def said(each: Said | None) -> dict[str, Any] | None:
        return each and {"class": each.name, "score": each.score, "probability": each.probability}

    maps = glance.attention
    return {
        "step": glance.step,
        "says": said(glance.says),
        "of_class": said(glance.own),
        "l1": glance.l1,
        "dead": None if maps is None else glance.dead,
        "attention": None if maps is None else [[round(value, 5) for value in line] for line in maps.tolist()],
    }
