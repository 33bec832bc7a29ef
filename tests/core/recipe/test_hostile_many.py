"""Recipes mutated by the thousand: each is read or refused in words, soon, and in bounded memory.

`RECIPES=20000 pytest -m slow tests/core/recipe/test_hostile_many.py -s` says what it measures.
"""

import os
import random
import time
from pathlib import Path

import pytest
from helpers.command import lwmfw_process
from helpers.growth import Taken
from helpers.hostile import CATALOGUE, RECIPE

from lwmfw.errors import UserError
from lwmfw.recipe.load import load_recipe

MANY = int(os.environ.get("RECIPES", "20000"))
PIECES = [
    b"[", b"]", b"[[", b"]]", b"{",
    b"}", b'"', b"'", b'"""', b"'''", b"=", b".", b",", b"#", b"\n", b"\\", b"\0", b"\r",
    b"nan", b"-inf", b"1e999", b"0x" + b"f" * 5000, b"9" * 5000, b"[" * 500, b"{a=" * 300, b"a." * 40 + b"a=1\n",
    b"\xff", b"\xc3", b"\xef\xbb\xbf", "\u202e".encode(), "\u2028".encode(), b"\x1b[31m", b"true", b"2020-01-01",
    b'extends = "recipe.toml"\n',
    b'extends = "../x.toml"\n', b'extends = "/etc/passwd"\n', b'plugins = ["/dev/zero"]\n',
    b"[training.first]\n", b"[[penalties]]\n", b'as = "x"\n', b'use = "L_D"\n', b'"" = 1\n', b"__class__ = 1\n",
]  # fmt: skip


def mutated(draw):
    raw = RECIPE.encode()
    for _ in range(draw.choice((1, 1, 2, 4))):
        place, length = draw.randrange(len(raw) + 1), draw.choice((0, 0, 1, 5, 40))
        lines = raw.splitlines(keepends=True)
        match draw.randrange(4):
            case 0:
                raw = raw[:place] + draw.choice(PIECES) + raw[place + length :]
            case 1:
                raw = raw[:place] + draw.randbytes(length) + raw[place + length :]
            case 2 if lines:
                raw = b"".join(draw.sample(lines, draw.randint(1, len(lines))))
            case _:
                raw = raw[:place] + raw[place : place + length] * 2 + raw[place + length :]
    return raw


def answered(path):
    """Whether a recipe is read; if not, it is refused in printable lines that begin with its place."""
    try:
        load_recipe(path, catalogue=CATALOGUE)
    except UserError as error:
        lines = str(error).split("\n")
        assert all(line.startswith(str(path)) and line.isprintable() and len(line) < 1000 for line in lines), lines
        return False
    return True


def tried(count, seed):
    draw, path, read, slowest = random.Random(seed), Path("recipe.toml"), 0, 0.0
    with Taken() as taken:
        for _ in range(count):
            path.write_bytes(mutated(draw))
            begun = time.perf_counter()
            read += answered(path)
            slowest = max(slowest, time.perf_counter() - begun)
    return read, slowest, taken


def test_mutated_recipes_are_read_or_refused():
    read, _, taken = tried(60, 0)
    assert 0 < read < 60
    assert taken.peak < 100
    assert os.listdir() == ["recipe.toml"]


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_many_are_read_or_refused_within_a_second_each():
    read, slowest, taken = tried(MANY, 1)
    print(f"\n{MANY} recipes: {read} read, {taken.seconds:.1f} s, slowest {slowest:.2f} s, {taken.peak:.0f} MiB more")
    assert slowest < 1
    assert taken.peak < 300
    assert os.listdir() == ["recipe.toml"]


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_two_hundred_processes_end_with_0_or_2():
    draw, codes = random.Random(2), set()
    for _ in range(int(os.environ.get("RECIPES_CLI", "200"))):
        Path("recipe.toml").write_bytes(mutated(draw))
        done = lwmfw_process("check", "recipe.toml")
        codes.add(done.returncode)
        assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert codes == {0, 2}
    assert os.listdir() == ["recipe.toml"]
