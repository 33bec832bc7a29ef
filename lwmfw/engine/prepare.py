"""Everything a run needs before its first step."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, cast

import torch

from lwmfw.assembly.calls import Randomness
from lwmfw.assembly.parts import Assembly
from lwmfw.components import ObjectiveOptions
from lwmfw.data.arrange import arrange
from lwmfw.data.images import DataSet, ImageSet
from lwmfw.data.loader import Loader
from lwmfw.engine.build import DeviceName, choose_device, new_model
from lwmfw.engine.run import ObjectiveTerm, Run
from lwmfw.errors import UserError
from lwmfw.memory.store import Memory
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.orders import NAMED_ORDERS
from lwmfw.recipe.scenario import steps_of, used_classes
from lwmfw.recipe.tables import Scenario
from lwmfw.record.results import Results


def prepare(assembly: Assembly, device_name: DeviceName = "auto") -> Run:
    """Build everything a run needs besides its components: data in class order, an empty model.

    Raises:
        UserError: missing data, a scenario the data cannot fill, no such device.
    """
    recipe = assembly.resolved.recipe
    device = choose_device(device_name)
    loaded: DataSet = assembly.method("data", "load")()
    order = class_order(recipe.scenario, len(loaded.class_names), recipe.seed)
    steps = steps_of(recipe.scenario, len(order))
    data = arrange(loaded, order, recipe.evaluation.validation, recipe.seed)
    data = DataSet(**vars(data) | {"train": data.train.to(device), "test": data.test.to(device)})
    providers = {name: chosen.component.provider.record for name, chosen in assembly.chosen.items()}
    names = [loaded.class_names[label] for label in order]
    run = Run(
        recipe=recipe,
        assembly=assembly,
        steps=steps,
        data=data,
        loader=Loader.of(data, device),
        objective=_objective(assembly),
        model=new_model(assembly, data.train.channels, data.train.size, device),
        device=device,
        results=Results(recipe.name, recipe.seed, order, names, providers),
        rng=Randomness(recipe.seed, assembly.position),
        memory=_memory(assembly, data.train, len(order)),
    )
    for step in steps:
        run.phases(step)
    return run


def _memory(assembly: Assembly, images: ImageSet, classes: int) -> Memory | None:
    table = assembly.resolved.recipe.memory
    if table is None:
        return None
    memory = Memory(parse_budget(table.budget), RunCodec(assembly), images)
    total = memory.spendable.total(classes, memory.cost(images))
    if total is not None and total < classes:
        raise UserError(
            f"memory.budget: '{table.budget}' is less than an exemplar for each of {classes} classes; raise it"
        )
    return memory


class RunCodec:
    """The codec as a run calls it, so that an error in it names its provider. To workers goes the codec itself."""

    def __init__(self, assembly: Assembly) -> None:
        self._codec = assembly.components[assembly.name_of("codec")]
        self.encode, self.decode = assembly.method("codec", "encode"), assembly.method("codec", "decode")
        self.shared_bytes = assembly.method("codec", "shared_bytes")

    def __reduce__(self) -> tuple[Any, ...]:
        return itemgetter(0), ((self._codec,),)


def _objective(assembly: Assembly) -> ObjectiveTerm:
    name = assembly.name_of("objective")
    options = cast(ObjectiveOptions, assembly.chosen[name].options)
    return ObjectiveTerm(name, options.over, options.weight, assembly.method("objective", "loss"))


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
    }


def class_order(scenario: Scenario, classes: int, seed: int) -> list[int]:
    """The labels of a data set in the order in which they are learned.

    Args:
        scenario: states the order and how many of its classes are used.
        classes: number of classes of the data set.
        seed: decides `order = "seed"`.

    Raises:
        UserError: as `used_classes`.
    """
    import numpy as np
    import torch

    from lwmfw.rng import generator

    used = used_classes(scenario, classes)
    if isinstance(scenario.order, list):
        return scenario.order[:used]
    if scenario.order == "seed1993":
        return [int(label) for label in np.random.RandomState(1993).permutation(classes)][:used]
    if scenario.order != "seed":
        return NAMED_ORDERS[scenario.order][:used]
    return torch.randperm(classes, generator=generator(seed, "order")).tolist()[:used]
