"""The JSON schema of recipes, made from what is installed, so that an editor completes and checks them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lwmfw.components import KINDS, Component
from lwmfw.recipe.catalogue import Catalogue
from lwmfw.recipe.tables import ListedChoice, MemoryTable, Recipe, Scenario, StepSettings, Training


def recipe_schema(catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of a recipe in which every table knows the options of every installed component.

    A file may leave to its base what a whole recipe must have: no key is required where tables are merged.
    """
    schema = Recipe.model_json_schema()
    properties, definitions = schema["properties"], schema["$defs"]
    for kind in KINDS:
        *outer, key = kind.table.split(".")
        place = definitions["MemoryTable"]["properties"] if outer else properties
        forms = [_form(component, definitions, listed=kind.listed) for component in catalogue.of_kind(kind.kind)]
        if kind.listed:
            place[key] = {"type": "array", "items": {"oneOf": forms}}
        else:
            place[key] = {"oneOf": [*forms, _form_of_base(forms)]}
    first = StepSettings.model_json_schema()
    definitions["Training"]["properties"]["first"] = {
        "type": "object", "properties": first["properties"], "additionalProperties": False
    }  # fmt: skip
    for unused in ("Choice", "ListedChoice"):
        definitions.pop(unused, None)
    for table in (schema, *(definitions[model.__name__] for model in (Scenario, MemoryTable, Training))):
        table.pop("required", None)
    properties["extends"] = {
        "type": "string",
        "description": "a recipe in this folder or below, or else a shipped one, whose tables are merged",
    }
    stated: dict[str, Any] = _without_null(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | stated


def schema_text(catalogue: Catalogue) -> str:
    """The same as a file has it."""
    return json.dumps(recipe_schema(catalogue), indent=1) + "\n"


def _without_null(schema: Any) -> Any:
    """A schema without null, which TOML has not: what may be null may be left out."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_null(value) for key, value in schema.items() if (key, value) != ("default", None)}
    some = [each for each in kept.get("anyOf", []) if each != {"type": "null"}]
    if len(some) == 1:
        del kept["anyOf"]
        return kept | some[0]
    return kept | ({"anyOf": some} if some else {})


def _form(component: Component, definitions: dict[str, Any], *, listed: bool) -> dict[str, Any]:
    """The table of a component; its options' own definitions are added to the others, under names of its own."""
    provider = component.provider  # a file may be called anything; what a reference may hold is its digest
    own = f"{component.kind}:{provider.sha256 or provider.name}:{component.name}"
    options = component.options.model_json_schema(ref_template=f"#/$defs/{own}:{{model}}")
    definitions |= {f"{own}:{name}": each for name, each in options.pop("$defs", {}).items()}
    named = {"use": {"enum": [component.name, f"{component.provider.name}/{component.name}"]}}
    if listed:
        named["as"] = ListedChoice.model_json_schema()["properties"]["as"]
    options["properties"] = named | options.get("properties", {})
    options["required"] = ["use", *(options.get("required", []) if listed else [])]
    return options | {"title": component.name, "description": component.summary}


def _form_of_base(forms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table that sets options of whichever component the base has chosen."""
    known = sorted({option for form in forms for option in form["properties"]} - {"use"})
    return {
        "title": "as in the base",
        "description": "options of the component that the recipe has from its base",
        "type": "object",
        "properties": {option: {} for option in known},
        "additionalProperties": False,
    }
