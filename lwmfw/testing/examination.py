"""The examination of a component: one function for every kind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lwmfw.assembly.assemble import build
from lwmfw.assembly.contract import unknown_need
from lwmfw.components import Component, Options
from lwmfw.errors import LwmfwError
from lwmfw.testing import checks
from lwmfw.testing.growth import check_growth
from lwmfw.testing.inside import check_inside
from lwmfw.testing.tiny import provided


def check(record: Component, given: Mapping[str, Any] | None = None, /, **options: Any) -> None:
    """Hold a component against the contract of its kind: `check(Penalty("angles", Angles, AngleOptions), weight=0.5)`.

    Args:
        record: as `register_components` yields it.
        given: what the examination has to know, by name. Of a penalty `stationary` and `reaches_model`, of a backbone
            `channels` and `size`; `check_penalty` and `check_backbone` say what they mean. Of any that acts inside
            steps `recipe`: tables with which a tiny run of it can be made.
        options: as a recipe states them.

    Raises:
        AssertionError: it says which sentence of the contract is broken.
        ValidationError: of pydantic; the options are none that the record's options class takes.
    """
    record = provided(record)
    checks.check_options(record)
    chosen = record.options.model_validate(options)
    try:
        _examine(record, chosen, *_apart(given or {}))
    except LwmfwError as error:
        raise AssertionError(f"{error}") from error


def _examine(record: Component, options: Options, given: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    built = build(record, options)
    instance = built.instance
    unknown = [fault for need in sorted(built.traits["needs"]) if (fault := unknown_need(need))]
    assert not unknown, f"{record.provider}: {record.name} needs {unknown[0]}"
    if record.kind == "penalty":
        checks.check_penalty(record.factory, options, **given)
    elif record.kind == "observer":
        with tempfile.TemporaryDirectory() as folder:
            checks.check_observer(record, Path(folder), options, **given)
    else:
        of_its_kind: Callable[..., None] = getattr(checks, f"check_{record.kind}")
        of_its_kind(instance, **given)
    check_inside(record, options, built, recipe)
    if "grow_model" in built.hooks and record.kind == "backbone":
        check_growth(instance, **given)


def _apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What the check of a kind has to know, and the recipe."""
    return {name: value for name, value in given.items() if name != "recipe"}, given.get("recipe", {})
