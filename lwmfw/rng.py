"""Random numbers as pure functions of where they are drawn.

Nothing depends on how often a global generator was asked before, so a resumed run draws what the uninterrupted run
drew, and a component added to a recipe does not change another's numbers.
"""

import hashlib

import torch


def derive_seed(seed: int, *key: object) -> int:
    """A seed in [0, 2^63) that depends on `seed` and on every part of `key`."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *key: object) -> torch.Generator:
    """A fresh CPU generator for `key`."""
    return torch.Generator().manual_seed(derive_seed(seed, *key))


def seed_global(seed: int, step: int) -> None:
    """Make what draws from torch's global generator (initial weights, dropout) a function of seed and step."""
    torch.manual_seed(derive_seed(seed, "global", step))
