"""What pydantic finds wrong with a recipe, in sentences that say where and what to do."""

from __future__ import annotations

import datetime
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lwmfw.components import KINDS
from lwmfw.errors import did_you_mean, quoted, shown
from lwmfw.recipe.text import Keys, Source


def render(source: Source, prefix: Keys, who: str, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A pydantic error as lines of the form `file:line: where: what is wrong; what to do`.

    Args:
        source: the recipe, which knows where its values were written.
        prefix: the table that was validated.
        who: the component the table configures, to be named behind the key; empty for the recipe's own tables.
        error: what validation found.
        model: the model it was validated by, for suggestions.
    """
    details = error.errors(include_url=False)
    places = [existing(source.table, (*prefix, *detail["loc"]), len(prefix)) for detail in details]
    entered = {keys[:length] for keys in places for length in range(len(keys))}
    lines: dict[Keys, list[str]] = {}
    for detail, keys in zip(details, places, strict=True):
        # of a union's branches, the one that was entered knows best
        of_union = len(keys) < len(prefix) + len(detail["loc"])
        if not of_union or keys not in entered:
            lines.setdefault(keys, []).append(_message(detail, keys, model))
    return [source.behind_place(keys, f"{dotted(keys)}{who}: {_either(messages)}") for keys, messages in lines.items()]


def existing(table: Any, location: Keys, kept: int) -> Keys:
    """A location without the names of a union's branches, which no table has."""
    keys: Keys = ()
    for number, key in enumerate(location):
        there = key in table if isinstance(table, dict) else isinstance(table, list) and isinstance(key, int)
        if there:
            table = table[key]
        elif number >= kept and not (isinstance(table, dict) and number == len(location) - 1):
            continue
        keys = (*keys, key)
    return keys


def _message(detail: ErrorDetails, keys: Keys, model: type[BaseModel]) -> str:
    message = " ".join(detail["msg"].split())  # a validator may say more than a line
    message = message[:1].lower() + message[1:]
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_of(model, detail["loc"][:-1])
            return "no such option" + (did_you_mean(str(keys[-1]), known) or f"; choose of {', '.join(known)}")
        case "missing":
            return "is missing; add it"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"input should be a table, got {_value(detail)}; write [{dotted(keys)}]"
        case "list_type" if keys in {tuple(kind.table.split(".")) for kind in KINDS}:
            return f"{message}, got {_value(detail)}; write [[{dotted(keys)}]]"
        case "value_error":  # raised by a validator: "what should be; what to do"
            what, semicolon, remedy = message.removeprefix("value error, ").partition(";")
            return f"{what}, got {_value(detail)}{semicolon}{remedy}"
    return f"{message}, got {_value(detail)}{_quotes(detail, keys)}"


def wants_text(detail: ErrorDetails, text: str) -> bool:
    """Whether validation wanted a string, and `text` may be the one."""
    return detail["type"] == "string_type" or (
        detail["type"] == "literal_error" and repr(text) in str(detail.get("ctx", {}).get("expected"))
    )


def _quotes(detail: ErrorDetails, keys: Keys) -> str:
    """What to do about a value that lacks its quotes: "; write root = "2024"", or nothing."""
    value = detail["input"]
    if isinstance(value, float):  # it may have been 1e5 or 100000.0
        return "; put it in quotes" if wants_text(detail, str(value)) else ""
    if not isinstance(value, int | datetime.date | datetime.time):
        return ""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write out one of thousands of digits
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    key = "" if isinstance(keys[-1], int) else f"{shown(keys[-1])} = "
    return f'; write {key}"{text}"' if wants_text(detail, text) else ""


def _value(detail: ErrorDetails) -> str:
    return quoted(detail["input"])


def _either(messages: list[str]) -> str:
    """What the branches of a union say of one value, as one sentence."""
    if len(messages) == 1:
        return messages[0]
    start = "input should be "
    what = [message.removeprefix(start).partition(", got ") for message in messages]
    return f"{start}{' or '.join(text for text, _, _ in what)}, got {what[0][2]}"


def _keys_of(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys of a table inside a model's, or inside a list or a table of such."""
    for key in location:
        field = model.model_fields.get(str(key))
        types = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((each for each in types if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def dotted(keys: Keys) -> str:
    """Keys as a person would write them: `penalties[0].weight`."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{shown(key)}" if text else shown(key)
    return text
