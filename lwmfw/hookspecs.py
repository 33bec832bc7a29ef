"""The moments of a run at which a component can act. These docstrings are the manual (`lwmfw hooks`).

An implementation is a method marked with `@hookimpl`. It takes only the arguments it wants, by name and without
defaults. `rng`, a `torch.Generator` that depends on nothing but the seed, the step, the phase and the component, is
offered by every hook of a run besides the arguments described. Implementations are called in recipe order. Hooks run
outside autocast, so logits and features are float32, and never inside a worker process. The life cycle is drawn in
loop.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lwmfw.components import Component
    from lwmfw.metrics import Results, StepResult
    from lwmfw.model import Model
    from lwmfw.scenario import Step
    from lwmfw.state import Run
    from lwmfw.types import Batch, ImageSet, Outputs, Selection

hookspec = pluggy.HookspecMarker("lwmfw")
hookimpl = pluggy.HookimplMarker("lwmfw")


@hookspec
def register_components() -> Iterable[Component]:
    """Yield the component records of a plug-in.

    Called once, at discovery, on the module itself. It has to be pure: no files, no global state.

    Returns:
        Records such as `Penalty("angles", Angles, AngleOptions)`.
    """
    raise AssertionError("a specification, never called")


@hookspec
def before_run(run: Run, rng: Generator) -> None:
    """All components are built, nothing is trained. Also called when a run is resumed.

    The place to put a plug-in's own trainable parts into `run.model.extras`: a resumed run then has them before the
    checkpoint is read.

    Args:
        run: the run: its recipe, steps, data, model, device and directory.
    """


@hookspec
def before_step(run: Run, step: Step, model: Model, rng: Generator) -> None:
    """The classifier has grown for the new classes; the first batch has not been seen.

    Args:
        run: the run.
        step: the step that begins.
        model: the model that will be trained, with rows for `step.seen_classes`.
    """


@hookspec
def compute_penalty(
    step: Step, batch: Batch, new: Outputs, old: Outputs, model: Model, rng: Generator
) -> Mapping[str, Tensor] | None:
    """Summands of the loss that preserve old knowledge, for one batch, from the second step on.

    Args:
        step: the current step; `step.old_classes` are the classes the old model knows.
        batch: images, labels and origin of the batch.
        new: outputs of the model being trained, with gradients.
        old: outputs of its frozen predecessor for the same images, without gradients. Offered only to a component
            that names "old" in its `needs`.
        model: the model being trained.

    Returns:
        Term name -> scalar tensor, the term's weight already multiplied in; or None for no term in this batch. A
        name that another component returned too is an error.
    """
    raise AssertionError("a specification, never called")


@hookspec
def after_update(step: Step, batch: Batch, model: Model, rng: Generator) -> None:
    """The optimiser has made one update; the gradients that made it are still in place.

    Args:
        step: the current step.
        batch: the batch of the update.
        model: the model after the update.
    """


@hookspec
def after_epoch(run: Run, step: Step, epoch: int, means: Mapping[str, float], rng: Generator) -> None:
    """An epoch has ended.

    Args:
        run: the run; `run.position.phase` is the phase's name.
        step: the current step.
        epoch: the epoch within the phase, counted from 1.
        means: term name -> mean over the epoch's batches, already on the host.
    """


@hookspec(firstresult=True)
def select_memory(
    step: Step, model: Model, candidates: ImageSet, quota: Mapping[int, int], rng: Generator
) -> Selection:
    """Choose the exemplars, once per step of a recipe with [memory], after training and before evaluation.

    Args:
        step: the step that has been trained.
        model: the trained model, in training mode.
        candidates: new training images and what the memory holds, sorted by class, not augmented.
        quota: class -> how many may be kept, at most as many as there are.

    Returns:
        For each class of the quota, indices into the candidates, the most important first. Other images are gone.
    """
    raise AssertionError("a specification, never called")


@hookspec
def after_step(run: Run, step: Step, model: Model, data: ImageSet, result: StepResult, rng: Generator) -> None:
    """The step is evaluated and the old copy for the next step is taken.

    Args:
        run: the run.
        step: the step that ends.
        model: the trained model.
        data: the images the step was trained on, exemplars included, not augmented;
            `run.loader.evaluation_batches(data)` shows them, whether they are in memory or in files.
        result: accuracies, confusion and cost of the step. An observer adds what it measured to `result.extra`, under
            its component's name, as plain values; results.json keeps it.
    """


@hookspec
def after_run(run: Run, results: Results, rng: Generator) -> None:
    """The run has ended, also by an exception; `results.complete` tells which.

    Args:
        run: the run.
        results: the results of all finished steps.
    """
