"""Everything a run needs before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch

from lwmfw.assembly.assemble import assemble_filled
from lwmfw.assembly.calls import Attached
from lwmfw.assembly.parts import Assembly
from lwmfw.components import ObjectiveOptions
from lwmfw.data.arrange import arrange
from lwmfw.data.images import DataSet, ImageSet
from lwmfw.data.loader import Loader
from lwmfw.engine.build import DeviceName, choose_device, new_model
from lwmfw.engine.facts import check_classes, data_facts, file_digests
from lwmfw.engine.origin import (
    NO_CLASSES,
    check_alike,
    check_readouts,
    continued,
    finished_steps,
    labels_in,
    new_labels,
    only_readouts,
    origin_of,
    source,
    sources_of,
)
from lwmfw.engine.run import ObjectiveTerm, Run
from lwmfw.engine.telling import told_in_words
from lwmfw.engine.threads import use_threads
from lwmfw.errors import UserError
from lwmfw.memory.store import Memory
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.places import weight_files
from lwmfw.recipe.scenario import Orders, Step, labels_of, stated_order, steps_of, used_classes
from lwmfw.recipe.tables import Origin, Scenario
from lwmfw.recipe.text import placed
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.reading import RecordedRun, digest_of, settings_of
from lwmfw.record.results import Results
from lwmfw.rng import generator


def prepare(
    assembly: Assembly, device_name: DeviceName = "auto", *, filled: bool = False, again: Path | None = None
) -> Run:
    """Build everything a run needs besides its components: data in class order, an empty model.

    Args:
        assembly: the components.
        device_name: where it computes.
        filled: whether the model will be filled from a checkpoint; initial weights that are gone are not asked for.
        again: the directory of the run that goes on, if it is certain that one does.

    Raises:
        UserError: missing data, a scenario the data cannot fill, no such device.
        RunFailed: an error inside a component.
        CheckpointRefused: the data are of other classes than the run has begun with.
    """
    if (filled or assembly.resolved.recipe.origin) and not assembly.grows:  # a network that grows may read them again
        lost = [file for file in weight_files(assembly.resolved).values() if not file.is_file()]
        assembly = assemble_filled(assembly.resolved) if lost else assembly
    with told_in_words(assembly, Path.cwd()):
        run = _prepared(assembly, device_name, again)
        for step in run.steps[run.known_steps :]:
            assembly.check_terms(step)
    return run


def _prepared(assembly: Assembly, device_name: DeviceName, again: Path | None) -> Run:
    recipe, device = assembly.resolved.recipe, choose_device(device_name)
    use_threads(recipe.training.threads)
    origin = origin_of(recipe.origin) if recipe.origin else None
    loaded: DataSet = assembly.method("data", "load")()
    _check_promises(loaded, assembly.only("data"))
    if not loaded.class_names:
        raise UserError("data: has no classes; set data.root to a folder of them (--set data.root=DIR)")
    if recipe.origin and origin:
        return _behind(assembly, recipe.origin, origin, device, loaded)
    if again:
        check_classes(again, assembly.resolved, loaded.class_names)
    order, steps = _planned(assembly, loaded.class_names)
    names = [loaded.class_names[label] for label in order]
    data = arrange(loaded, order, recipe.evaluation.validation, recipe.seed)
    results = Results(recipe.name, recipe.seed, order, names, providers_of(assembly))
    results.data, results.files = data_facts(loaded), file_digests(assembly.resolved)
    return run_of(assembly, device, data, steps, results)


def _behind(assembly: Assembly, table: Origin, kept: Checkpoint, device: torch.device, loaded: DataSet) -> Run:
    """A run behind the steps of a finished one, on classes that it does not know."""
    recipe, recorded = assembly.resolved.recipe, RecordedRun(table.run)
    check_alike(loaded, kept, own_range=bool(getattr(assembly.only("data").chosen.options, "values", ())))
    check_readouts(assembly.resolved, recorded)
    known = kept.results.class_names
    new = new_labels(loaded, known, more=table.more)
    order, later = _planned(assembly, [loaded.class_names[label] for label in new]) if new else ([], [NO_CLASSES])
    labels = [new[place] for place in order]
    data = arrange(
        loaded, [*labels_in(loaded, known), *labels], recipe.evaluation.validation, recipe.seed, known=len(known)
    )
    names = [*known, *(loaded.class_names[label] for label in labels)]
    sources = [*sources_of(recorded), source(assembly.resolved, data.train, names)]
    results = continued(
        only_readouts(kept.results, list(assembly.of_kind("readout"))),
        recipe=recipe.name,
        seed=recipe.seed,
        new=names[len(known) :],
        providers=providers_of(assembly),
        sources=sources,
        data=data_facts(loaded),
        files=file_digests(assembly.resolved),
    )
    run = run_of(assembly, device, data, finished_steps(results, later), results)
    run.origin, run.known_steps = replace(kept, results=results), len(results.steps)
    return run


def _planned(assembly: Assembly, names: Sequence[str]) -> tuple[list[int], list[Step]]:
    """The labels of classes in the order in which they are learned, and the steps that share them out."""
    recipe = assembly.resolved.recipe
    try:
        order = class_order(recipe.scenario, names, assembly.only("data").trait("orders"), recipe.seed)
        return order, steps_of(recipe.scenario, len(order))
    except UserError as error:
        raise UserError(placed(error, assembly.resolved.source)) from error


def run_of(assembly: Assembly, device: torch.device, data: DataSet, steps: list[Step], results: Results) -> Run:
    """A run of components on data in class order, with an empty model."""
    recipe = assembly.resolved.recipe
    results.settings = digest_of(settings_of(assembly.resolved.tables(), results))
    data = replace(data, train=data.train.to(device), test=data.test.to(device))
    memory = new_memory(assembly, data.train)
    if memory and recipe.memory and len(data.train):
        _check_budget(memory, recipe.memory.budget, data.train, steps[-1].seen_classes.stop)
    for step in steps:
        assembly.phases(step)
    return Run(
        recipe=recipe,
        assembly=assembly,
        steps=steps,
        data=data,
        loader=Loader.of(data, device),
        objective=_objective(assembly),
        model=new_model(assembly, data.train.channels, data.train.size, device),
        device=device,
        results=results,
        rng=assembly.rng,
        memory=memory,
    )


def providers_of(assembly: Assembly) -> dict[str, str]:
    """Where the components come from, by name, as results.json states it."""
    return {name: part.record.provider.record for name, part in assembly.components.items()}


def _check_promises(loaded: DataSet, part: Attached) -> None:
    """Hold what a data set was said to have before it was read against what it has.

    Raises:
        RunFailed: another number of classes, or other names.
    """
    names, count, said = loaded.class_names, part.trait("class_count"), part.trait("class_names")
    who = f"{part.provider}: {part.name}.load returned"
    if count not in (None, len(names)):
        raise part.failure(f"{who} {len(names)} classes, but class_count is {count}; make them agree")
    if said is not None and list(said) != names:
        raise part.failure(f"{who} other class_names than the component states; make them agree")


def new_memory(assembly: Assembly, like: ImageSet) -> Memory | None:
    """The memory of a run on images such as these, before it keeps any; None: the recipe has no [memory]."""
    table = assembly.resolved.recipe.memory
    if table is None:
        return None
    return Memory(parse_budget(table.budget), RunCodec(assembly.only("codec")), like)


def _check_budget(memory: Memory, text: str, images: ImageSet, classes: int) -> None:
    total = memory.spendable.total(classes, memory.cost(images))
    if total is not None and total < classes:
        raise UserError(f"memory.budget: '{text}' is less than an exemplar for each of {classes} classes; raise it")


class RunCodec:
    """The codec as a run calls it: answers checked, errors told as its own. To workers goes the codec itself."""

    def __init__(self, codec: Attached) -> None:
        self._codec = codec.instance
        self.encode, self.decode, self.shared_bytes = map(codec.method, ("encode", "decode", "shared_bytes"))

    def __reduce__(self) -> tuple[Any, ...]:
        return itemgetter(0), ((self._codec,),)


def _objective(assembly: Assembly) -> ObjectiveTerm:
    objective = assembly.only("objective")
    options = cast(ObjectiveOptions, objective.chosen.options)
    return ObjectiveTerm(objective.name, options.over, options.weight, assembly.method("objective", "loss"))


def environment(run: Run) -> dict[str, object]:
    """Facts for env.json that only torch knows."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": name,
        "arithmetic": run.arithmetic,
        "threads": torch.get_num_threads(),
        "skipped_images": run.data.skipped,
        "left_out": run.data.left_out,
        "allow_drift": sorted(run.allow_drift),
    }


def class_order(scenario: Scenario, names: Sequence[str], orders: Orders, seed: int) -> list[int]:
    """The labels of a data set in the order in which they are learned.

    Args:
        scenario: states the order and how many of its classes are used.
        names: of the data set's classes, by label.
        orders: those that the data set offers, by name.
        seed: decides `order = "seed"`.

    Raises:
        UserError: as `used_classes` and `labels_of`.
    """
    used = used_classes(scenario, len(names), orders)
    stated = stated_order(scenario, orders)
    if scenario.order == "given":
        stated = range(len(names))
    elif stated is None:
        stated = torch.randperm(len(names), generator=generator(seed, "order")).tolist()
    return labels_of(stated, names)[:used]
