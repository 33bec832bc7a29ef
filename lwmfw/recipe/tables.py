"""What the tables of a recipe must hold."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lwmfw.components import Choice, Folder, Options
from lwmfw.recipe.budget import PATTERN, parse_budget

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
"""What names a recipe or a component: safe as a key, in a path, in a message and behind a slash."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
StepSize = Annotated[int, Field(ge=1, le=1_000_000)]


def _of_a_folder(name: str) -> str:
    if name.endswith(".") or _RESERVED.fullmatch(name.partition(".")[0]):
        raise ValueError("input should be a name that every system lets a folder have; write another")
    return name


_RESERVED = re.compile("con|prn|aux|nul|(com|lpt)[1-9]", re.IGNORECASE)
"""What Windows lets no folder be called, whatever follows behind a dot."""

FolderName = Annotated[Name, AfterValidator(_of_a_folder)]
"""What a folder may be called besides."""


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
    first: int = Field(ge=0, le=1_000_000, description="classes in the first step; 0: all")
    increment: Annotated[int, Field(ge=0, le=1_000_000)] | Annotated[list[StepSize], Field(max_length=100_000)] = Field(
        0, description="classes in each later step, the last taking what is left; 0: there is none; or a list of them"
    )
    order: Annotated[str | list[Annotated[int, Field(ge=0, le=1_000_000)] | str], AfterValidator(_of_one_sort)] = Field(
        "seed",
        description="seed: drawn from the seed; given: as the data set lists them; the name of an order of the data "
        "set; or a list of classes, by number or by name",
    )


def _budget(text: str) -> str:
    parse_budget(text)
    return text


class MemoryTable(Options):
    """Exemplars of earlier steps; left out, there are none."""

    budget: Annotated[str, AfterValidator(_budget)] = Field(
        description='"2000 exemplars", "20 per class", "6 MB" as they are stored, or "all"',
        json_schema_extra={"pattern": PATTERN},
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

    epochs: int = Field(
        30, ge=0, le=100_000, description="passes over the training data of a step; 0: nothing is trained"
    )
    batch_size: int = Field(128, ge=1, le=65_536, description="images in an update")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="from torch.optim")
    lr: float = Field(0.1, gt=0, le=1000, description="learning rate at the start of a step")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay of every parameter")
    schedule: Literal["cosine", "steps", "constant"] = Field(
        "cosine", description="cosine falls to 0 at the step's end; steps: times gamma at every milestone"
    )
    milestones: list[Fraction] = Field(
        [0.5, 0.75], description="milestones of schedule steps: shares of the phase after which the rate falls"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the rate at a milestone of schedule steps")
    batchnorm: Literal["train", "eval", "always"] = Field(
        "train",
        description="train: a batch is normalised by its own mean and variance, which the running ones follow; eval: "
        "by the running ones, as the step before left them; scale and shift learn either way; always: as train, in a "
        "backbone too that does not learn, whose running ones stay as they are otherwise",
    )


class Training(StepSettings):
    """How every step is trained; `[training.first]` overrides keys for step 1."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the hardware computes in it natively"
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="of the processor; another number changes the last bits; 0: as many as the process may use, which "
        "resolved.toml then states",
    )
    first: dict[str, Any] = Field({}, description="overrides for step 1")

    def settings(self, step: int) -> StepSettings:
        """The settings of step `step`, counted from 1."""
        base = self.model_dump(include=set(StepSettings.model_fields))
        return StepSettings.model_validate(base | (self.first if step == 1 else {}))


class Evaluation(Options):
    """What is measured after a step, on which images."""

    @model_validator(mode="before")
    @classmethod
    def _former(cls, table: Any) -> Any:
        if isinstance(table, dict) and "classifiers" in table:
            raise ValueError(
                "input should have no classifiers, who decides has tables of its own; write [[readouts]] with "
                'use = "cnn", another with use = "nme"'
            )
        return table

    validation: Fraction = Field(
        0.0, description="this share of the training data takes the test set's place, which is then not used"
    )


class Origin(Options):
    """The finished run that this one goes on from: its model, its classes and what its components know."""

    run: Folder = Field(min_length=1, description="its directory; of an adopted run, the file of its weights")
    checkpoint: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the tensors of its last checkpoint")
    made_by: Literal["", "adopt", "merge", "retract"] = Field(
        "", description="the verb that alone can make the run again; empty: it goes on from there"
    )
    more: bool = Field(
        False, description="whether images may be of classes that it knows; [scenario] has new ones alone"
    )


CONSOLE = [{"use": "console"}]


def is_console(table: Any) -> bool:
    """Whether that is the table of a console, of whichever provider; its name within the recipe says nothing."""
    use = table.get("use") if isinstance(table, dict) else None
    return isinstance(use, str) and use.rpartition("/")[2] == "console"


def _called_apart(observers: list[ListedChoice]) -> list[ListedChoice]:
    if any(observer.as_ == "console" and not is_console(observer.model_dump()) for observer in observers):
        raise ValueError('input should leave the name console to the console; write another as = "..."')
    return observers


class Recipe(Options):
    """Everything that decides the numbers of a run, apart from the machine."""

    name: FolderName
    seed: int = Field(1993, ge=0, le=2**63 - 1, description="seed of class order, initial weights and augmentation")
    plugins: list[str] = Field(
        [], max_length=100, description="plug-in files, relative to the recipe, besides those of its bases"
    )
    origin: Origin | None = None
    data: Choice
    scenario: Scenario
    backbone: Choice
    classifier: Choice
    objective: Choice
    penalties: list[ListedChoice] = Field([], max_length=100)
    phases: list[ListedChoice] = Field([], max_length=100)
    memory: MemoryTable | None = None
    training: Training
    readouts: list[ListedChoice] = Field([ListedChoice(use="cnn")], min_length=1, max_length=100)
    evaluation: Evaluation = Evaluation()
    observers: Annotated[list[ListedChoice], AfterValidator(_called_apart)] = Field(
        [ListedChoice(use="console")], max_length=100
    )
    console: bool = Field(True, description="whether observers that are listed are joined by the console")

    @model_validator(mode="before")
    @classmethod
    def _with_console(cls, table: dict[str, Any]) -> dict[str, Any]:
        """An observer is added to the console, which `console = false` leaves out; no observers at all are silence."""
        listed, wanted = table.get("observers", CONSOLE), table.get("console", True)
        if wanted is False and listed is CONSOLE:
            return table | {"observers": []}
        if wanted is not True or not isinstance(listed, list) or not listed or any(map(is_console, listed)):
            return table
        return table | {"observers": [*listed, *CONSOLE]}  # last: the places of the others stay
