"""The JSON schema of recipes, made from what is installed, so that an editor completes and checks them."""

from __future__ import annotations

from typing import Any

from lwmfw.components import KINDS
from lwmfw.recipe.catalogue import Catalogue
from lwmfw.recipe.tables import ListedChoice, Recipe, StepSettings


def recipe_schema(catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of a recipe in which every table knows the options of every installed component."""
    schema = Recipe.model_json_schema()
    properties, definitions = schema["properties"], schema["$defs"]
    for kind in KINDS:
        *outer, key = kind.table.split(".")
        place = definitions["MemoryTable"]["properties"] if outer else properties
        forms = []
        for component in catalogue.of_kind(kind.kind):
            options = component.options.model_json_schema()
            definitions |= options.pop("$defs", {})
            extra = {"as": ListedChoice.model_json_schema()["properties"]["as"]} if kind.listed else {}
            use = {"enum": [component.name, f"{component.provider.name}/{component.name}"]}
            options["properties"] = {"use": use} | extra | options.get("properties", {})
            options["required"] = ["use", *options.get("required", [])]
            options["title"], options["description"] = component.name, component.summary
            forms.append(options)
        choice = {"oneOf": forms}
        place[key] = {"type": "array", "items": choice} if kind.listed else choice
    first = StepSettings.model_json_schema()
    definitions["Training"]["properties"]["first"] = {
        "type": "object", "properties": first["properties"], "additionalProperties": False
    }  # fmt: skip
    for unused in ("Choice", "ListedChoice"):
        definitions.pop(unused, None)
    # a file may leave to its base what the whole recipe must have
    schema.pop("required", None)
    properties["extends"] = {
        "type": "string",
        "description": "a recipe in this folder or below, or else a shipped one, whose tables are merged",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
