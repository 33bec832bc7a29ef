"""A key with one wrong letter is answered with the right key; `TYPOS=9000 pytest -s` asks about so many."""

import os
import random

from helpers.hostile import CATALOGUE, RECIPE, refusal

from lwmfw.errors import did_you_mean
from lwmfw.recipe.messages import _keys_of
from lwmfw.recipe.tables import Recipe

LETTERS = "abcdefghijklmnopqrstuvwxyz_"
TABLES = {
    "": [*Recipe.model_fields],
    **{name: _keys_of(Recipe, (name,)) for name in ("scenario", "training", "evaluation")},
    "memory": ["budget", "select", "rate", "codec", "refine", "replay"],
    **{f"{c.kind} {c.name}": _keys_of(c.options, ()) for c in CATALOGUE.components},
}
"""Table -> its keys."""


def typos(key, draw):
    """What one slip makes of a key: a letter left out, doubled, changed, put in, or two exchanged."""
    made = set()
    for place in range(len(key)):
        before, letter, rest = key[:place], key[place], key[place + 1 :]
        other = draw.choice(LETTERS)
        made |= {before + rest, before + 2 * letter + rest, before + other + rest, before + other + letter + rest}
        if rest:
            made.add(before + rest[0] + letter + rest[1:])
    return sorted(made - {key, ""})


def asked():
    draw = random.Random(0)
    for table, keys in TABLES.items():
        for key in keys:
            for typo in typos(key, draw):
                if typo not in keys:
                    yield table, keys, key, typo


def test_the_right_key_is_suggested_for_nineteen_of_twenty_slips():
    known = {}
    for _, keys, key, typo in asked():  # tables have keys in common
        known.setdefault((typo, tuple(keys)), key)
    known = dict(random.Random(1).sample(sorted(known.items()), int(os.environ.get("TYPOS", "2000"))))
    right = sum(did_you_mean(typo, keys) == f"; did you mean '{key}'?" for (typo, keys), key in known.items())
    print(f"\n{right} of {len(known)}")
    assert right >= 0.95 * len(known)


def test_a_slip_in_every_table_is_answered_in_a_recipe(tmp_path):
    for wrong, right in {
        "sed = 1\n": "seed",
        "[scenario]\nincremnt = 2\n": "increment",
        "[training]\nepocsh = 2\n": "epochs",
        "[evaluation]\nvalidaton = 0.1\n": "validation",
        "[data]\nsead = 1\n": "seed",
    }.items():
        table = wrong.splitlines()[0] + "\n" if wrong.startswith("[") else ""
        line = wrong.removeprefix(table)
        text = RECIPE.replace('"fashion-mnist-mini"', '"synthetic"')
        text = text.replace(table, table + line) if table in text and table else (line if not table else "") + text
        (tmp_path / "recipe.toml").write_text(text + (wrong if table and table not in text else ""))
        assert f"did you mean '{right}'?" in refusal()
