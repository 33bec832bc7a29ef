"""A component's options: read from its table, and such that a recipe can keep them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w
from pydantic import ValidationError

from lwmfw.components import Component, Options
from lwmfw.errors import FOREIGN, UserError, describe, quoted


def as_written(options: Options) -> dict[str, Any]:
    """Options as the keys and values of a recipe, every default written out."""
    return options.model_dump(exclude_none=True, by_alias=True, warnings=False)


def read_options(component: Component, table: Mapping[str, Any]) -> Options:
    """The validated options of a component.

    Args:
        component: whose.
        table: as a recipe states them.

    Raises:
        ValidationError: the table is wrong.
        UserError: the options class is: it fails, or has values that a recipe cannot state.
    """
    who = f"{component.provider}: {component.name}"
    try:
        options = component.options.model_validate(table)
    except ValidationError:
        raise
    except FOREIGN as error:
        raise UserError(
            f"{who}: its options cannot be checked: {describe(error)}; a validator raises ValueError"
        ) from error
    fault = _unkept(options)
    if fault:
        raise UserError(f"{who}: {fault}; let options be strings, numbers, booleans, and lists and tables of them")
    return options


def _unkept(options: Options) -> str:
    """Why a recipe that states some options would not be read as the same; empty: it would."""
    try:
        table = as_written(options)
    except FOREIGN as error:
        return f"its options cannot be written: {describe(error)}"
    for key, value in table.items():
        try:
            tomli_w.dumps({key: value}).encode()
        except FOREIGN:
            return f"its option '{key}' is {quoted(value)}, which TOML does not have"
    try:
        again = type(options).model_validate(tomllib.loads(tomli_w.dumps(table)))
        return "" if again == options else "its options are others when they are read from a recipe again"
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"])) or "options"
        return f"its option '{key}' is {quoted(first['input'])}, which is refused when it is read from a recipe again"
    except FOREIGN as error:
        return f"its options cannot be read from a recipe again: {describe(error)}"
