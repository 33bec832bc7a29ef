"""The moments of a run at which a component can act. These docstrings are the manual (`lwmfw hooks`).

An implementation is a method marked with `@hookimpl`. It takes only the arguments it wants, by name and without
defaults. Besides the arguments described, every hook of a run offers `name`, the component's name in the recipe, and,
where drawing is allowed, `rng`, a `torch.Generator` that depends on nothing but the seed, the step, the phase and the
component. Implementations are called in recipe order. Hooks run outside autocast, so logits and features are float32,
and never inside a worker process. What they return is held against a table (assembly/answers.py). The life cycle is
drawn in loop.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from lwmfw.components import Component
    from lwmfw.data.images import Batch, ImageSet
    from lwmfw.engine.run import Run
    from lwmfw.memory.selection import Selection
    from lwmfw.model.growing import Model
    from lwmfw.model.outputs import Outputs
    from lwmfw.recipe.budget import Budget
    from lwmfw.recipe.phase import Phase
    from lwmfw.recipe.scenario import Step
    from lwmfw.record.results import Results, StepResult

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
    """All components are built and nothing is trained yet; also called when a run is resumed.

    The place to put a plug-in's own trainable parts into `run.model.extras`: a resumed run then has them before the
    checkpoint is read.

    Args:
        run: the run: its recipe, steps, data, model, device and directory.
    """


@hookspec(firstresult=True)
def grow_model(step: Step, model: Model, rng: Generator) -> nn.Module | None:
    """A step begins, and the classifier is about to grow; networks that grow do so here.

    Called in every step, and again where a run is resumed, opened or extended: for every finished step in order, with
    nothing trained in between, before the weights are read. A network whose shape says more than the step's number
    takes it from the state it is given (`torch.nn.Module.register_load_state_dict_pre_hook`).

    Afterwards the backbone is asked for its form anew. Where it has another number of features, the classifier is
    resized: let the component need "resize". Torch's global generator is a function of seed and step where the step is
    learned next.

    Args:
        step: the step that begins.
        model: as the last step left it.

    Returns:
        None, whether `model.backbone` has grown in place or stays; or a module that takes its place.
    """
    raise AssertionError("a specification, never called")


@hookspec
def choose_data(run: Run, step: Step, data: ImageSet, rng: Generator) -> ImageSet | None:
    """Choose the training images of a step, before `before_step`.

    Args:
        run: the run; `run.memory` is its memory, or None.
        step: the step that begins.
        data: what it would be trained on: exemplars, then the images of its new classes, sorted by class. Of several
            components each is given what the one before it has left.

    Returns:
        Part of them, in their order; or None for all of them. A new image that is left out is gone: it is no candidate
        for the memory either. An exemplar that is left out is not trained on in this step, a phase of balanced images
        included, and stays in the memory.
    """
    raise AssertionError("a specification, never called")


@hookspec
def before_step(run: Run, step: Step, model: Model, data: ImageSet, rng: Generator) -> None:
    """The classifier has grown for the new classes; training is about to begin.

    The backbone's weights are as the last step left them, and stay so here.

    Args:
        run: the run.
        step: the step that begins.
        model: the model that will be trained, with rows for `step.seen_classes`.
        data: the images it will be trained on, exemplars first, not augmented.
    """


@hookspec
def plan_phases(step: Step, main: Phase) -> list[Phase] | None:
    """Plan further phases after a step's main one, such as fine-tuning on equally many images of every class.

    Also called while a recipe is checked and a run is planned: the answer depends on the recipe and the step alone, and
    nothing is drawn for it. A check that does not know the number of classes asks for the first two steps alone.

    Args:
        step: the current step.
        main: its main phase; `replace(main, name=..., epochs=...)` is one like it.

    Returns:
        The phases in their order, no two of a step of one name; or None.
    """
    raise AssertionError("a specification, never called")


@hookspec
def group_parameters(step: Step, phase: Phase, model: Model, rng: Generator) -> list[dict[str, Any]] | None:
    """A phase begins; its optimiser is about to be built from the parameters that require gradients.

    Whether a parameter requires gradients can be changed here for this phase: afterwards it is as it was before. A
    growing network may change its shape here too; whoever does it calls `model.reshaped()`. Parameters that it makes
    anew learn afterwards.

    Args:
        step: the current step.
        phase: the phase that begins.
        model: the model that will be trained.

    Returns:
        Parameter groups as torch's optimisers take them, such as `{"params": [...], "lr": 0.01}`, of parameters that
        need something else than the phase says; or None.
    """
    raise AssertionError("a specification, never called")


@hookspec
def compute_penalty(
    step: Step, batch: Batch, new: Outputs, old: Outputs, model: Model, rng: Generator
) -> Mapping[str, Tensor] | None:
    """Terms of the loss beside the objective's, for one batch, from the second step on.

    A component that says `acts_first` is asked in the first step too.

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
def after_update(step: Step, batch: Batch, model: Model, terms: Mapping[str, Tensor], rng: Generator) -> None:
    """The optimiser has made an update; its gradients are still in place.

    Args:
        step: the current step.
        batch: the batch of the update.
        model: the model after the update.
        terms: term name -> scalar of this batch, on the device; whoever reads a value waits for the device, which costs
            little every few seconds and much at every update.
    """


@hookspec
def after_epoch(
    run: Run, step: Step, epoch: int, means: Mapping[str, float], rate: float, images_per_s: float, rng: Generator
) -> None:
    """An epoch has ended.

    After a phase's last one a growing network may change its shape; whoever does it calls `run.model.reshaped()`.

    Args:
        run: the run; `run.position.phase` is the phase's name.
        step: the current step.
        epoch: the epoch within the phase, counted from 1.
        means: term name -> mean over the epoch's batches, already on the host.
        rate: the learning rate of the epoch's first update.
        images_per_s: how many images of this phase were shown a second.
    """


@hookspec
def after_training(run: Run, step: Step, model: Model, old: Model, data: ImageSet, rng: Generator) -> None:
    """The phases of a step are over, and nothing is stored or measured yet; read-outs are fitted here.

    The one place where a classifier may be set without gradients. The backbone is not changed here.

    Args:
        run: the run; `run.features(data)` are the model's features, `run.features(data, model=old)` its predecessor's,
            row by row of the same images.
        step: the step that has been trained.
        model: the trained model, in training mode.
        old: its frozen predecessor; None in the first step. Offered only to a component that names "old" in its
            `needs`.
        data: the images the step was trained on, exemplars first, not augmented.
    """


@hookspec
def before_memory(run: Run, step: Step, model: Model, candidates: ImageSet, rng: Generator) -> None:
    """In a recipe with [memory], exemplars are about to be selected; no quota is known yet.

    Called after training, and before a phase of balanced images, which are selected likewise.

    Args:
        run: the run.
        step: the step that has been trained.
        model: the trained model, in training mode.
        candidates: as in `select_memory`.
    """


@hookspec(firstresult=True)
def allocate_memory(
    run: Run, step: Step, budget: Budget, classes: range, cost: float, rng: Generator
) -> Mapping[int, int]:
    """Share the budget out among the classes, whenever exemplars are selected or planned for.

    Args:
        run: the run.
        step: the step that has been trained, or is planned.
        budget: as the recipe states it, without bytes that all exemplars share.
        classes: the classes seen so far.
        cost: mean bytes of an exemplar as the codec stores it.

    Returns:
        Class -> how many exemplars it may have. It gets less where there are fewer images; bytes are never exceeded.
    """
    raise AssertionError("a specification, never called")


@hookspec(firstresult=True)
def select_memory(
    run: Run, step: Step, model: Model, candidates: ImageSet, quota: Mapping[int, int], rng: Generator
) -> Selection:
    """In a recipe with [memory], choose the exemplars, after training and before evaluation.

    Also called before a phase of balanced images, which is trained on what is selected.

    Args:
        run: the run; `run.features(images)` are the model's features of images.
        step: the step that has been trained.
        model: the trained model, in training mode.
        candidates: what the memory holds, each old class in the order in which it was selected, then the new training
            images; sorted by class, not augmented.
        quota: class -> how many may be kept, at most as many as there are.

    Returns:
        For each class of the quota, indices into the candidates, the most important first. Other images are gone.

    A refiner wraps it: marked `@hookimpl(wrapper=True)`, it begins with `selection = yield`, what the selector and the
    refiners before it chose, and returns a Selection, of which `pixels` are stored in the place of what was chosen. A
    phase of balanced images is trained on what was chosen, unrefined.
    """
    raise AssertionError("a specification, never called")


@hookspec
def after_step(run: Run, step: Step, model: Model, data: ImageSet, result: StepResult, rng: Generator) -> None:
    """The step is evaluated and the old copy for the next one is taken; the model must not change here any more.

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
    """The run has ended, perhaps with an exception; `results.complete` tells which.

    Args:
        run: the run.
        results: the results of all finished steps.
    """


SPECS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in list(globals().items())
    if getattr(function, "lwmfw_spec", None) is not None
}
"""Hook name -> its argument names, in the order of a run."""

OWN: dict[str, str] = {
    "rng": "a torch.Generator that depends on seed, step, phase and component alone",
    "name": "the component's name in the recipe: the key of what it adds to results, the name of its files",
}
"""What hooks of a run offer besides their arguments; another for each component."""

RUN_HOOKS = tuple(name for name in SPECS if name != "register_components")


def own(hook: str) -> list[str]:
    """The keys of OWN that a hook of a run offers: one whose answer is not drawn offers no `rng`."""
    return [argument for argument in OWN if argument != "rng" or argument in SPECS[hook]]
