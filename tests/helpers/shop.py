"""A made-up shop of components and a recipe of them: no message changes when a method is added to those we ship."""

from pathlib import Path
from types import ModuleType

import pytest

from lwmfw import Field, Options, Penalty, hookimpl
from lwmfw.assembly.assemble import assemble
from lwmfw.components import Backbone, Classifier, Data, Objective, Observer, Provider, Readout
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import Catalogue, add_module
from lwmfw.recipe.load import load_recipe
from lwmfw.recipe.settings import parse_settings


class PullOptions(Options):
    weight: float = Field(1.0, ge=0, description="factor of the term")
    layers: int = Field(3, ge=1, le=9, description="how many")


class PushOptions(Options):
    strength: float = Field(1.0, ge=0, description="factor of the term")


class WideOptions(Options):
    width: int = Field(16, ge=1, description="channels")


class Part:
    """Enough of a component of any kind."""

    class_count = 10
    offers = frozenset({"features"})

    def __init__(self, options):
        pass

    def load(self): ...
    def build(self, *given): ...
    def loss(self, logits, labels): ...
    def scores(self, features): ...


class Watching(Part):
    @hookimpl
    def compute_penalty(self, new):
        return None

    @hookimpl
    def before_run(self, run):
        pass


def shop(name="shop", version="1.2"):
    """A catalogue of one distribution that has a component or two of every kind."""
    return stocked(
        Catalogue(), Provider(name, version),
        Data("digits", Part), Backbone("flat", Part), Backbone("wide", Part, WideOptions), Classifier("linear", Part),
        Objective("plain", Part), Penalty("pull", Watching, PullOptions), Penalty("push", Watching, PushOptions),
        Readout("cnn", Part), Observer("console", Watching),
    )  # fmt: skip


def stocked(catalogue, provider, *records):
    module = ModuleType(provider.name)
    module.register_components = hookimpl(lambda: records)
    add_module(catalogue, module, provider)
    return catalogue


RECIPE = """[data]
use = "digits"

[scenario]
first = 2
increment = 2

[backbone]
use = "flat"

[classifier]
use = "linear"

[objective]
use = "plain"

[training]
epochs = 1

[[penalties]]
use = "pull"
weight = 0.5
"""


def write(text, name="recipe.toml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(text, *sets, name="recipe.toml", catalogue=None):
    """The recipe after both stages of validation and the scenario's, as `lwmfw check` has it."""
    resolved = load_recipe(write(text, name), parse_settings(sets), catalogue=catalogue or shop())
    assemble(resolved)
    return resolved


def tables(text, *sets, **more):
    return load(text, *sets, **more).tables()


def refusal(text, *sets, **more):
    with pytest.raises(UserError) as refused:
        load(text, *sets, **more)
    return str(refused.value)
