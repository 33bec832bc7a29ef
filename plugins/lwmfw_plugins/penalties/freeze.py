"""freeze: the backbone stays as the first steps left it; only the classifier learns.

Nothing of the old classes' features is forgotten and nothing new is learned but rows of the classifier: the baseline
that says what a method's plasticity is worth (FACIL's "freezing"; Masana et al. 2022).

BatchNorm's running mean and variance stay as well, but where a recipe says batchnorm = "always": in such phases they
follow the batches, and features change with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lwmfw import Component, Field, Options, Penalty, hookimpl

if TYPE_CHECKING:
    from lwmfw import Model, Step


class FreezeOptions(Options):
    """Options of freeze."""

    after: int = Field(1, ge=0, le=1_000_000, description="the last step in which the backbone learns; 0: none")


class Freeze:
    """Freeze the backbone and, but for batchnorm = "always", its statistics, from the start or after some steps."""

    needs = frozenset({"features"})  # one that grows would be frozen before its newest part has learned

    def __init__(self, options: FreezeOptions) -> None:
        self.after = options.after
        self.spares_first_step = options.after > 0

    @hookimpl
    def before_step(self, step: Step, model: Model) -> None:
        """Take the backbone out of training."""
        if step.index > self.after:
            model.backbone.requires_grad_(False)


@hookimpl
def register_components() -> Iterator[Component]:
    """The component of this file."""
    yield Penalty("freeze", Freeze, FreezeOptions)
