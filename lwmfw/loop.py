"""The incremental loop, the only one. A method that does not fit its hooks is a reason to discuss the hooks.

hook before_run                                   (then, when resumed, the checkpoint is read)
for each step - Step(index, new classes, seen classes):
    hook grow_model -> the classifier grows -> hook choose_data -> hook before_step
    phases: main, then those of hook plan_phases; each: hook group_parameters, optimiser, schedule
        per batch: old = old_model(x) if a component needs it; new = model(x)
                   terms = {objective} + hook compute_penalty (in the first step of those alone that say acts_first)
                   sum.backward() ; update ; hook after_update
        per epoch: term means to the host ; metrics.jsonl ; hook after_epoch
    hook after_training (read-outs are fitted)
    with [memory]: hook before_memory -> quota = hook allocate_memory -> selection = hook select_memory -> memory.store
    result = evaluate(model, seen classes, every read-out) -> old = frozen copy
    hook after_step -> checkpoint
hook after_run                                    (also after an exception)
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lwmfw.data.images import Batch, ImageSet
from lwmfw.data.loader import EpochShape
from lwmfw.engine.build import grow
from lwmfw.engine.evaluate import evaluate
from lwmfw.engine.going_on import finish, go_on, old_model, save, take_first_step
from lwmfw.engine.optimizer import Answers, build_optimizer, build_schedule, check_parameters
from lwmfw.engine.progress import EVALUATION, MEMORY, READOUTS
from lwmfw.engine.run import Run
from lwmfw.engine.terms import backward, check_gradient, merge_terms
from lwmfw.memory.exemplars import balanced, choose_data, keep_exemplars
from lwmfw.model.growing import Model
from lwmfw.model.outputs import Outputs
from lwmfw.recipe.phase import Phase
from lwmfw.recipe.scenario import Step
from lwmfw.record.results import Results
from lwmfw.rng import generator, seed_global
from lwmfw.stopping import STOP


def train(run: Run) -> Results:
    """Run all steps that are not finished.

    Raises:
        RunFailed: a term of the loss is not finite, or a plug-in raised.
    """
    hook = run.assembly.hook
    try:
        hook.before_run(run=run, rng=run.rng)
        go_on(run)
        old = old_model(run)
        with STOP.waiting():
            for step in run.remaining_steps:
                old = learn(run, step, old)
        finish(run)
    finally:
        hook.after_run(run=run, results=run.results, rng=run.rng)
    return run.results


def learn(run: Run, step: Step, old: Model | None) -> Model | None:
    """One incremental step; returns the old model of the next one."""
    hook, position, progress = run.assembly.hook, run.assembly.position, run.progress
    position.step, position.phase, position.epoch, position.batch = step.index, "", 0, 0
    progress.begin_step()
    seed_global(run.recipe.seed, step.index)
    grow(run.assembly, run.model, step)
    images, candidates = choose_data(run, step)
    with run.sharing_features():
        hook.before_step(run=run, step=step, model=run.model, data=images, rng=run.rng)
    if run.first_step and step.index == 1:
        take_first_step(run, run.first_step)
    else:
        for stage, phase in enumerate(run.phases(step)):
            position.phase, position.epoch = phase.name, 0
            if progress.enters(stage):
                train_phase(run, step, phase, balanced(run, step, images) if phase.balanced else images, old)
        position.epoch = 0
    run.rng.renew()  # whatever was drawn in training, which another run may have done
    if progress.enters(READOUTS):
        with run.sharing_features():
            hook.after_training(run=run, step=step, model=run.model, old=old, data=images, rng=run.rng)
    if progress.enters(MEMORY):
        keep_exemplars(run, step, candidates)
    progress.enters(EVALUATION)
    result = evaluate(run, step, progress.seconds, progress.epochs, progress.parts)
    run.results.steps.append(result)
    old = old_model(run)
    hook.after_step(run=run, step=step, model=run.model, data=images, result=result, rng=run.rng)
    save(run)
    STOP.obey()
    return old


def train_phase(run: Run, step: Step, phase: Phase, images: ImageSet, old: Model | None) -> None:
    """Train on the images of a step for the epochs of a phase."""
    if not phase.epochs:
        return
    hook, model = run.assembly.hook, run.model
    trainable = {p: p.requires_grad for p in model.parameters()}
    groups = hook.group_parameters(step=step, phase=phase, model=model, rng=run.rng)
    if not phase.optional or any(p.requires_grad for p in model.parameters()):
        train_epochs(run, step, phase, images, old, groups)
    for parameter in model.parameters():  # one that a network has made anew in the phase learns
        parameter.requires_grad_(trainable.get(parameter, True))
    model.batchnorm = "train"
    model.train()


def train_epochs(run: Run, step: Step, phase: Phase, images: ImageSet, old: Model | None, groups: Answers) -> None:
    """The epochs of a phase that has begun, its parameters in groups."""
    hook, position, model = run.assembly.hook, run.assembly.position, run.model
    optimizer = build_optimizer(phase, model, groups, run.assembly)
    held = int((images.labels < step.new_classes.start).sum())
    shape = EpochShape(len(images), held, phase.batch_size, 0.0 if phase.balanced else run.replay)
    schedule = build_schedule(phase, optimizer, phase.epochs * shape.batches)
    model.batchnorm = phase.batchnorm
    model.train()
    at = run.progress.in_phase(optimizer, schedule, phase.epochs, shape.batches)
    for position.epoch in range(at.epoch, phase.epochs + 1):
        started, done = time.perf_counter(), at.batch
        rng = generator(run.recipe.seed, "epoch", step.index, phase.name, at.epoch)
        batches = run.loader.training_batches(images, shape, rng, done)
        for position.batch, batch in enumerate(batches, done + 1):
            terms = compute_terms(run, step, phase, batch, old)
            optimizer.zero_grad(set_to_none=True)
            backward(terms, position)
            optimizer.step()
            schedule.step()
            terms = {name: value.detach() for name, value in terms.items()}
            hook.after_update(step=step, batch=batch, model=model, terms=terms, rng=run.rng)
            at.means.add(terms)
            run.progress.advance()
        on_host = at.means.to_host(position)  # the only host synchronisation of an epoch
        pace = round(shape.shown * (1 - done / shape.batches) / (time.perf_counter() - started), 1)
        if run.directory:
            row = {"step": step.index, "phase": phase.name, "epoch": at.epoch, "terms": on_host, "lr": at.rate}
            run.directory.log_epoch(row | {"images_per_s": pace})
        position.batch = 0
        told = {"means": on_host, "rate": at.rate, "images_per_s": pace}
        hook.after_epoch(run=run, step=step, epoch=at.epoch, **told, rng=run.rng)
        if at.epoch < phase.epochs:
            check_parameters(optimizer, model)
        run.progress.next_epoch(float(schedule.get_last_lr()[0]))
    run.progress.look()  # the last update has no loss behind it


def compute_terms(run: Run, step: Step, phase: Phase, batch: Batch, old_model: Model | None) -> dict[str, Tensor]:
    """The summands of the loss of one batch, by name."""
    # the old model first: what its forward pass allocates is free again when the new one's graph needs it
    old = old_outputs(run, old_model, batch) if old_model and phase.penalties else None
    new = new_outputs(run, batch)
    terms = objective_term(run, step, phase, batch, new)
    if phase.penalties:
        ask = run.assembly.hook.compute_penalty if step.index > 1 else run.assembly.first_penalty
        penalties = ask(step=step, batch=batch, new=new, old=old, model=run.model, rng=run.rng)
        terms = merge_terms(terms, penalties)
    check_gradient(terms, new.logits)
    return terms


def objective_term(run: Run, step: Step, phase: Phase, batch: Batch, new: Outputs) -> dict[str, Tensor]:
    """The classification loss L_C over the new or over all seen classes."""
    objective = run.objective
    first = step.new_classes.start if objective.over == "new" else 0
    logits = new.logits[:, first:]
    if phase.temperature != 1:
        logits = logits / phase.temperature
    return {objective.name: objective.weight * objective.loss(logits, batch.labels - first)}


def new_outputs(run: Run, batch: Batch) -> Outputs:
    """What the model says of a batch; maps of a frozen backbone are differentiable too where a component needs it."""
    frozen = run.assembly.needs_old_graph and not any(p.requires_grad for p in run.model.backbone.parameters())
    return run.model(batch.images.detach().requires_grad_() if frozen else batch.images)  # type: ignore[no-any-return]


def old_outputs(run: Run, old: Model, batch: Batch) -> Outputs:
    """What the frozen predecessor says of a batch: ordinary tensors without gradients."""
    if run.assembly.needs_old_graph:
        return old(batch.images.detach().requires_grad_()).detached()  # type: ignore[no-any-return]
    with torch.no_grad():
        return old(batch.images)  # type: ignore[no-any-return]
