"""What a step does with the exemplar memory: the images it is trained on, and the exemplars that are kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from pluggy import HookCaller

from lwmfw.data.images import ImageSet
from lwmfw.memory.selection import Selection, at_most
from lwmfw.recipe.scenario import Step

if TYPE_CHECKING:
    from lwmfw.engine.run import Run


class StepImages(NamedTuple):
    """The images that a step is trained on, exemplars first, and the candidates for the memory after it."""

    training: ImageSet
    candidates: ImageSet


def choose_data(run: Run, step: Step) -> StepImages:
    """The exemplars and new images of a step; the first one on new data has more of known classes."""
    begins = 0 if step.index == run.known_steps + 1 else step.new_classes.start
    new = run.data.train.of_classes(range(begins, step.new_classes.stop))
    data = run.memory.join(new) if run.memory else new
    chosen = run.assembly.chosen_data(run, step, data)
    if chosen is data:
        return StepImages(data, data)
    shown = int((chosen.labels < step.new_classes.start).sum())
    if run.memory is None or shown == len(run.memory.exemplars):
        return StepImages(chosen, chosen)
    there = torch.arange(shown, len(chosen), device=chosen.labels.device)
    return StepImages(chosen, run.memory.join(chosen.select(there)))


def balanced(run: Run, step: Step, images: ImageSet) -> ImageSet:
    """As many images of every class as the memory will keep, before refiners change any."""
    return _select(run, step, images, run.assembly.select_unrefined).images(images)


def keep_exemplars(run: Run, step: Step, candidates: ImageSet) -> None:
    """Let the memory, if there is one, keep a selection of the images of a step and of what it holds."""
    if run.memory is not None:
        run.memory.store(candidates, _select(run, step, candidates, run.assembly.hook.select_memory))


def _select(run: Run, step: Step, candidates: ImageSet, select_memory: HookCaller) -> Selection:
    hook, model = run.assembly.hook, run.model
    assert run.memory is not None, "phases of balanced images need [memory], which is checked"  # noqa: S101
    hook.before_memory(run=run, step=step, model=model, candidates=candidates, rng=run.rng)
    quota = at_most(run.quota(step, run.memory.cost(candidates)), candidates)
    selection: Selection = select_memory(
        run=run, step=step, model=model, candidates=candidates, quota=quota, rng=run.rng
    )
    return selection
