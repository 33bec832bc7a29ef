"""What `lwmfw plugins` and `lwmfw hooks` print, read off the components and the hook specifications."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lwmfw import hookspecs
from lwmfw.components import KINDS, TRAITS, Component, DataChoice, Trait
from lwmfw.errors import FOREIGN, UserError, did_you_mean, quoted, shown
from lwmfw.hookspecs import OWN, RUN_HOOKS, SPECS, own
from lwmfw.recipe.catalogue import Catalogue


def sorted_components(catalogue: Catalogue) -> list[Component]:
    """All components by kind, then name."""
    return [component for kind in KINDS for component in catalogue.of_kind(kind.kind)]


def named(catalogue: Catalogue, name: str) -> list[Component]:
    """The components of a name, of whatever kind.

    Raises:
        UserError: there is none.
    """
    found = [c for c in sorted_components(catalogue) if name in (c.name, f"{c.provider.name}/{c.name}")]
    if not found:
        known = {c.name for c in catalogue.components}
        raise UserError(f"no component named '{name}'{did_you_mean(name, known) or '; `lwmfw plugins` lists them'}")
    return found


def about(component: Component) -> str:
    """What the file of a component says at its head, its source and equations among it, in a person's words."""
    module = sys.modules.get(getattr(component.made_by, "__module__", ""))
    try:
        text = getattr(module, "__doc__", None)
    except FOREIGN:  # of a module that computes it
        text = None
    lines = inspect.cleandoc(text).splitlines() if isinstance(text, str) else []
    return "\n".join(shown(line, 200) for line in lines[:60])


def option_rows(component: Component) -> list[list[str]]:
    """Name, type, default and meaning of each option."""
    return field_rows(component.options)


def field_rows(table: type[BaseModel]) -> list[list[str]]:
    """Name, type, default and meaning of each key of a table."""
    rows = []
    for name, field in table.model_fields.items():
        rows.append([field.alias or name, _type(field.annotation), _default(field), _line(field.description or "")])
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    try:
        return _toml(field.get_default(call_default_factory=True))
    except FOREIGN:  # a factory that asks for other options, or fails
        return "computed"


def trait_rows(component: Component) -> list[list[str]]:
    """Name, type, value and meaning of what an object of the kind may say of itself."""
    rows = []
    for trait in TRAITS.values():
        if not trait.kinds or component.kind in trait.kinds:
            rows.append([trait.name, trait.type, _stated(component.made_by, trait), trait.meaning])
    return rows


def _stated(made_by: Any, trait: Trait) -> str:
    try:
        return _told(getattr(made_by, trait.name, trait.default))
    except FOREIGN:  # of a class whose attribute is computed, and not without an object
        return "as its options say"


def _told(value: Any) -> str:
    if callable(value):
        return "defined"
    if isinstance(value, property):
        return "as its options say"
    if isinstance(value, Collection) and not isinstance(value, str):
        return ", ".join(sorted(map(_line, value))) or "-"
    return _toml(value)


def component_json(component: Component) -> dict[str, Any]:
    """What `lwmfw plugins` lists of a component."""
    provider = str(component.provider)
    return {"kind": component.kind, "name": component.name, "from": provider, "summary": component.summary}


def manual_json(component: Component) -> dict[str, Any]:
    """All that is known of a component, its options as a JSON schema."""
    traits = {name: stated for name, _, stated, _ in trait_rows(component)}
    said = {"about": about(component), "options": component.options.model_json_schema(), "traits": traits}
    return component_json(component) | said


def hook_json(name: str) -> dict[str, Any]:
    """A hook, what it offers and its manual."""
    manual = hook_page(name)  # refuses a name that is no hook's
    besides = own(name) if name in RUN_HOOKS else []
    return {"hook": name, "arguments": _arguments(name), "besides": besides, "manual": manual}


def hook_rows() -> list[list[str]]:
    """Name, arguments and first sentence of each hook."""
    return [[name, ", ".join(_arguments(name)), _doc(name).splitlines()[0]] for name in SPECS]


def hook_page(name: str) -> str:
    """The manual of one hook: its signature and docstring.

    Raises:
        UserError: there is no such hook.
    """
    if name not in SPECS:
        raise UserError(f"no hook named '{name}'{did_you_mean(name, SPECS) or '; `lwmfw hooks` lists them'}")
    if name not in RUN_HOOKS:
        return f"{name}()\n\n{_doc(name)}"
    besides = "".join(f"\n    {argument}: {OWN[argument]}." for argument in own(name))
    return f"{name}({', '.join(_arguments(name))})\n\n{_doc(name)}\n\nOffered besides:{besides}"


def _arguments(name: str) -> list[str]:
    return [argument for argument in SPECS[name] if argument != "rng"]


def _doc(name: str) -> str:
    return inspect.cleandoc(getattr(hookspecs, name).__doc__)


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{_line(value)}"'
        case None:
            return "-"
        case DataChoice():
            return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.model_dump().items()) + " }"
        case _:
            return quoted(value, 200)


def _line(text: object) -> str:
    """Foreign text as a cell of a table."""
    return shown(" ".join(str(text).split()), 500)


def _type(annotation: Any) -> str:
    """A type as a recipe writes it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(_toml(value) for value in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(_type(part) for part in arguments if part is not type(None))
    if origin is list:
        return f"array of {_type(arguments[0])}"
    named = ((str, "string"), (bool, "boolean"), (int, "integer"), (float, "number"), (DataChoice, "data set"))
    for known, name in named:
        if annotation is known:
            return name
    return _line(getattr(annotation, "__name__", annotation))
