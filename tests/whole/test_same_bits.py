"""What `resolved.toml` keeps of a run gives its bits again, whatever the method."""

import pytest
from helpers.bits import bits_of
from helpers.methods import METHODS, tables

import lwmfw
from lwmfw.testing import tiny_recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_resolved_toml_gives_the_bits_again(name, tmp_path):
    lwmfw.run(tiny_recipe(tables(name), tmp_path), out=tmp_path / "run", device="cpu")
    lwmfw.run(tmp_path / "run" / "resolved.toml", out=tmp_path / "again", device="cpu")
    assert bits_of(tmp_path / "again") == bits_of(tmp_path / "run")
    stated = [(tmp_path / folder / "resolved.toml").read_text() for folder in ("run", "again")]
    assert stated[0] == stated[1]
