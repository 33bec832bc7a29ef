"""Random numbers as pure functions of where they are drawn.

Nothing depends on how often a global generator was asked before, so a resumed run draws what the uninterrupted run
drew, and a component added to a recipe does not change another's numbers.
"""

import hashlib

import torch

from lwmfw.position import Position


def derive_seed(seed: int, *key: object) -> int:
    """A seed in [0, 2^63) that depends on `seed` and on every part of `key`."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *key: object) -> torch.Generator:
    """A fresh CPU generator for `key`."""
    return torch.Generator().manual_seed(derive_seed(seed, *key))


class Randomness:
    """Gives every component its own generator, renewed at every step and phase."""

    def __init__(self, seed: int, position: Position) -> None:
        self._seed, self._position = seed, position
        self._moment: tuple[int, str] | None = None
        self._generators: dict[str, torch.Generator] = {}

    def of_component(self, name: str) -> torch.Generator:
        """The generator of the component called `name` in the current step and phase."""
        moment = (self._position.step, self._position.phase)
        if moment != self._moment:
            self._moment, self._generators = moment, {}
        if name not in self._generators:
            self._generators[name] = generator(self._seed, "component", *moment, name)
        return self._generators[name]
