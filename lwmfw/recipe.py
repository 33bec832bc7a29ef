"""Recipes: what the tables must hold, and the two stages that turn a file into chosen components.

First the tables are checked (no plug-in is loaded for a recipe whose tables are wrong), then each component's own
options. Both stages report all their errors at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lwmfw.budget import parse_budget
from lwmfw.components import KINDS, Component, Options
from lwmfw.errors import UserError, shown
from lwmfw.messages import dotted, render
from lwmfw.plugins import Catalogue, discover
from lwmfw.source import LISTED, Keys, Source, apply, read_source

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
StepSize = Annotated[int, Field(ge=1, le=1_000_000)]


class Choice(BaseModel):
    """A table that names one component; the rest of its keys are the component's options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    use: str = Field(min_length=1, max_length=200, description="name of the component, or provider/name")

    def rest(self) -> dict[str, Any]:
        """The component's own options, not yet validated."""
        return dict(self.__pydantic_extra__ or {})


class ListedChoice(Choice):
    """A component in an array; several of one name need different `as`."""

    as_: Name | None = Field(None, alias="as", description="name within the recipe; by default that of `use`")


def _of_one_sort(order: str | list[int | str]) -> str | list[int | str]:
    if isinstance(order, list) and len({type(label) for label in order}) > 1:
        raise ValueError("input should be numbers alone or names alone; write every class in the same way")
    return order


class Scenario(Options):
    """Which classes come when."""

    classes: int = Field(0, ge=0, le=1_000_000, description="0: all; n: the first n of the order")
    first: int = Field(ge=1, le=1_000_000, description="classes in the first step")
    increment: Annotated[int, Field(ge=0, le=1_000_000)] | Annotated[list[StepSize], Field(max_length=100_000)] = Field(
        0, description="classes in each later step, the last taking what is left; 0: there is none; or a list of them"
    )
    order: Annotated[str | list[Annotated[int, Field(ge=0, le=1_000_000)] | str], AfterValidator(_of_one_sort)] = Field(
        "seed",
        description="seed: drawn from the seed; the name of an order of the data set; or a list of classes, by number "
        "or by name",
    )


def _budget(text: str) -> str:
    parse_budget(text)
    return text


class MemoryTable(Options):
    """Exemplars of earlier steps; left out, there are none."""

    budget: Annotated[str, AfterValidator(_budget)] = Field(
        description='"2000 exemplars", "20 per class", "6 MB" as they are stored, or "all"'
    )
    select: Choice
    rate: Choice = Choice(use="even")
    codec: Choice = Choice(use="raw")
    refine: list[ListedChoice] = Field([], max_length=100)
    replay: Fraction = Field(
        0.0, description="share of exemplars in every batch; 0: they come as often as the new images"
    )


class StepSettings(Options):
    """How one step is trained."""

    epochs: int = Field(30, ge=1, le=100_000, description="passes over the training data of a step")
    batch_size: int = Field(128, ge=1, le=65_536, description="images in an update")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="from torch.optim")
    lr: float = Field(0.1, gt=0, le=1000, description="learning rate at the start of a step")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="of every parameter")
    schedule: Literal["cosine", "steps", "constant"] = Field(
        "cosine", description="cosine falls to 0 at the step's end; steps: times gamma at every milestone"
    )
    milestones: list[Fraction] = Field(
        [0.5, 0.75], description="of schedule steps: shares of the phase after which the rate falls"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="of schedule steps")


class Training(StepSettings):
    """How every step is trained; `[training.first]` overrides keys for step 1."""

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    first: dict[str, Any] = Field({}, description="overrides for step 1")

    def settings(self, step: int) -> StepSettings:
        """The settings of step `step`, counted from 1."""
        base = self.model_dump(include=set(StepSettings.model_fields))
        return StepSettings.model_validate(base | (self.first if step == 1 else {}))


class Evaluation(Options):
    """What is measured after a step, on which images."""

    classifiers: list[Literal["cnn", "nme"]] = Field(
        ["cnn"],
        min_length=1,
        max_length=2,
        description="who decides: the classifier, the nearest mean of exemplars, or both beside each other",
    )
    validation: Fraction = Field(
        0.0, description="this share of the training data takes the test set's place, which is then not used"
    )


class Recipe(Options):
    """Everything that decides the numbers of a run, apart from the machine."""

    name: Name
    seed: int = Field(1993, ge=0, le=2**63 - 1, description="of class order, initial weights and augmentation")
    plugins: list[str] = Field([], max_length=100, description="plug-in files, relative to the recipe")
    data: Choice
    scenario: Scenario
    backbone: Choice
    classifier: Choice
    objective: Choice
    penalties: list[ListedChoice] = Field([], max_length=100)
    phases: list[ListedChoice] = Field([], max_length=100)
    memory: MemoryTable | None = None
    training: Training
    evaluation: Evaluation = Evaluation()
    observers: list[ListedChoice] = Field([ListedChoice(use="console")], max_length=100)


@dataclass(frozen=True)
class Chosen:
    """A component as a recipe chose it: `name` is its `as`, `keys` its place in the recipe."""

    name: str
    component: Component
    options: Options
    keys: Keys


@dataclass(frozen=True)
class Resolved:
    """A recipe whose every component is found and every option checked."""

    recipe: Recipe
    chosen: list[Chosen]
    source: Source
    catalogue: Catalogue

    def tables(self) -> dict[str, Any]:
        """The recipe as plain tables, every default written out; the order of keys is that of Recipe."""
        tables = self.recipe.model_dump(exclude_none=True)
        files = self.catalogue.files.items()
        tables["plugins"] = [f"{path}#sha256:{provider.sha256}" for path, provider in files]
        for chosen in self.chosen:
            *outer, last = chosen.keys
            table: Any = tables
            for key in outer:
                table = table[key]
            name = {"as": chosen.name} if isinstance(last, int) else {}
            table[last] = {"use": table[last]["use"]} | name | chosen.options.model_dump(exclude_none=True)
        return {key: tables[key] for key in Recipe.model_fields if key in tables}

    def toml(self) -> str:
        """The recipe as TOML; running it again gives the same bits."""
        import tomli_w

        return tomli_w.dumps(self.tables())


def load_recipe(
    path: Path | str,
    settings: Mapping[str, object] = {},
    *,
    seed: int | None = None,
    plugins: Sequence[Path] = (),
    catalogue: Catalogue | None = None,
) -> Resolved:
    """Read, merge and validate a recipe.

    Args:
        path: the TOML file.
        settings: dotted key -> value, as behind `--set`; they win over the file.
        seed: takes the place of the recipe's seed.
        plugins: plug-in files besides those of the recipe, relative to the current directory.
        catalogue: takes the place of what is installed; for tests.

    Raises:
        UserError: with all the errors of the first stage that has any, one per line.
    """
    path = Path(path)
    source = read_source(path, settings)
    table = source.table
    table.setdefault("name", _safe_name(path))
    if seed is not None:
        table["seed"] = seed
    if plugins and isinstance(table.setdefault("plugins", []), list):
        table["plugins"] = table["plugins"] + [str(Path(p).resolve()) for p in plugins]
    recipe = _check_tables(source)
    if catalogue is None:
        catalogue = discover(recipe.plugins)
    return _check_components(recipe, source, catalogue)


def override(resolved: Resolved, settings: Mapping[str, object]) -> Resolved:
    """The recipe with dotted keys set anew, in their order; nothing is read again.

    Raises:
        UserError: as `load_recipe`.
    """
    source = copy.deepcopy(resolved.source)
    for key, value in settings.items():
        apply(source, key, value)
    return _check_components(_check_tables(source), source, resolved.catalogue)


def _check_tables(source: Source) -> Recipe:
    errors: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(source.table)
    except ValidationError as error:
        errors = render(source, (), "", error, Recipe)
    training = source.table.get("training")
    first = training.get("first", {}) if isinstance(training, dict) else {}
    if isinstance(first, dict):
        try:
            StepSettings.model_validate(first)
        except ValidationError as error:
            errors += render(source, ("training", "first"), "", error, StepSettings)
    for table in LISTED:
        keys = tuple(table.split("."))
        listed: Any = source.table
        for key in keys:
            listed = listed.get(key) if isinstance(listed, dict) else None
        items = [item if isinstance(item, dict) else {} for item in (listed if isinstance(listed, list) else ())]
        names = [item.get("as") or str(item.get("use", "")).rpartition("/")[2] for item in items]
        for index, name in enumerate(names):
            if name and name in names[:index]:
                place = source.place((*keys, index))
                errors.append(
                    f"{place}: {table}[{index}]: a second '{shown(str(name))}'; give it another name with as = \"...\""
                )
    if errors or recipe is None:
        raise UserError("\n".join(errors))
    return recipe


def _check_components(recipe: Recipe, source: Source, catalogue: Catalogue) -> Resolved:
    errors: list[str] = []
    chosen: list[Chosen] = []
    for kind, keys, choice in _choices(recipe):
        try:
            component = catalogue.find(kind, choice.use)
        except UserError as error:
            errors.append(f"{source.place((*keys, 'use'))}: {dotted(keys)}.use: {error}")
            continue
        try:
            options = component.options.model_validate(choice.rest())
        except ValidationError as error:
            who = f" ({component.name}, from {component.provider})"
            errors += render(source, keys, who, error, component.options)
            continue
        name = getattr(choice, "as_", None) or component.name
        chosen.append(Chosen(name, component, options, keys))
    if errors:
        raise UserError("\n".join(errors))
    return Resolved(recipe, chosen, source, catalogue)


def _choices(recipe: Recipe) -> Iterator[tuple[str, Keys, Choice]]:
    """Kind, place and table of every component, in the order in which hooks are called."""
    for kind in KINDS:
        keys = tuple(kind.table.split("."))
        entry: Any = recipe
        for key in keys:
            entry = getattr(entry, key, None)  # None: the table around it is left out
        if isinstance(entry, list):
            for index, choice in enumerate(entry):
                yield kind.kind, (*keys, index), choice
        elif entry is not None:
            yield kind.kind, keys, entry


def _safe_name(path: Path) -> str:
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "_.+-") else "-" for c in path.stem)[:100]
    return stem if stem[:1].isalnum() else f"recipe{stem}"[:100]
