"""Options that name a folder or a file: what lies there decides a run's numbers, and where it lies does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from lwmfw.components import DataChoice, Place
from lwmfw.recipe.load import Resolved


def places(resolved: Resolved) -> set[str]:
    """The dotted keys under which a recipe may name a folder or a file, whether it does or not."""
    found = {f"origin.{key}" for key, _, _ in _named(resolved.recipe.origin)} if resolved.recipe.origin else set()
    for chosen in resolved.chosen:
        found |= {f"{chosen.address}.{key}" for key, _, _ in _named(chosen.options)}
        for key, value in chosen.options:
            if isinstance(value, DataChoice):  # a data set besides the recipe's own
                options = resolved.catalogue.find("data", value.use).options
                found |= {f"{chosen.address}.{key}.{inner}" for inner, _ in _places(options)}
    return found


def weight_files(resolved: Resolved) -> dict[str, Path]:
    """The files that a recipe names for its components, by dotted key; those of a data set are its images' affair."""
    return {
        f"{chosen.address}.{key}": Path(value)
        for chosen in resolved.chosen
        if chosen.component.kind != "data"
        for key, place, value in _named(chosen.options)
        if place.is_file and value and isinstance(value, str)
    }


def without_weights(resolved: Resolved) -> dict[str, object]:
    """Settings by which a backbone reads no file of initial weights, for a model that is filled from elsewhere."""
    (backbone,) = (chosen for chosen in resolved.chosen if chosen.component.kind == "backbone")
    fields = type(backbone.options).model_fields.items()
    empty = {f"backbone.{each.alias or name}" for name, each in fields if each.default == ""}
    return dict.fromkeys(weight_files(resolved).keys() & empty, "")


def _named(options: BaseModel) -> Iterator[tuple[str, Place, Any]]:
    """Key, place and value of the options that name a folder or a file."""
    table = options.model_dump(by_alias=True, warnings=False)
    return ((key, place, table[key]) for key, place in _places(type(options)))


def _places(options: type[BaseModel]) -> Iterator[tuple[str, Place]]:
    for name, each in options.model_fields.items():
        found = next((mark for mark in [*each.metadata, *_inside(each.annotation)] if isinstance(mark, Place)), None)
        if found:
            yield each.alias or name, found


def _inside(annotation: object) -> Iterator[object]:
    """What annotations inside a type say, as in list[Folder]."""
    for inner in get_args(annotation):
        yield inner
        yield from _inside(inner)
