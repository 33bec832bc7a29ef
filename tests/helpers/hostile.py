"""A valid recipe to be spoilt, and what a refusal of it has to look like."""

import pytest

from lwmfw.assembly.assemble import assemble
from lwmfw.errors import UserError
from lwmfw.recipe.catalogue import discover
from lwmfw.recipe.load import load_recipe

RECIPE = """name = "valid"

[data]
use = "fashion-mnist-mini"

[scenario]
first = 2
increment = 2

[backbone]
use = "resnet20"
width = 8

[classifier]
use = "linear"

[objective]
use = "bce"

[training]
epochs = 3
first = { lr = 0.2 }

[[penalties]]
use = "L_D"

[[penalties]]
use = "L_AD"
weight = 0.5
"""
CATALOGUE = discover()
FOREVER = 20
"""Seconds; each refusal takes milliseconds, and an algorithm of quadratic time far longer."""


def check(path, *more, **named):
    resolved = load_recipe(path, *more, **named)
    assemble(resolved)
    return resolved


def refusal(path="recipe.toml"):
    """The error of a recipe: printable, each line one problem that starts with its place, none endless."""
    with pytest.raises(UserError) as refused:
        check(path)
    message = str(refused.value)
    for line in message.split("\n"):
        assert line.startswith(path), line[:200]
        assert line.isprintable(), line[:200]
        assert len(line) < 1000, line[:200]
    return message
