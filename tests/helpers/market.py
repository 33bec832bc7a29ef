"""A market of components with options of many types, and settings for recipes of them."""

from typing import Any, Literal

import pytest

from helpers.shop import RECIPE, Part, PullOptions, Watching, shop, stocked, tables, write
from lwmfw import DataChoice, Field, Options, Penalty
from lwmfw.components import Backbone, Data, Folder, Provider
from lwmfw.errors import UserError
from lwmfw.recipe.load import load_recipe


class FolderOptions(Options):
    root: Folder = Field("", description="where")
    sampling: Literal["444", "420"] = Field("444", description="of colour")
    size: int = Field(8, description="pixels")


class ModelOptions(Options):
    model: str = Field("resnet18", description="which")


class AnyOptions(Options):
    table: dict[str, Any] = Field({"a": 1, "b": 2}, description="anything")
    other: DataChoice = Field(DataChoice(use="digits"), description="another data set")


def market():
    """The shop with components that have options of strings, and one of a table."""
    return stocked(
        shop(), Provider("market", "1.0"), Data("folder", Part, FolderOptions), Backbone("model", Part, ModelOptions),
        Penalty("any", Watching, AnyOptions), Penalty("late", Watching, PullOptions),
    )  # fmt: skip


def typed(*pairs, text=RECIPE):
    """The tables of a recipe with settings from the command line."""
    return tables(text, *pairs, catalogue=market())


def given(settings, text=RECIPE, **more):
    """The tables of a recipe with settings from Python."""
    return load_recipe(write(text), settings, catalogue=market(), **more).tables()


def refused(settings, text=RECIPE, **more):
    with pytest.raises(UserError) as error:
        given(settings, text, **more)
    assert "\n" not in str(error.value)
    return str(error.value)
