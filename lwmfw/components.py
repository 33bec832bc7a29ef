"""What a recipe can choose: typed records of components, one record class per kind.

A plug-in yields records from `register_components`. A record joins a name, a class and its options. The class is
plain: its constructor takes the options, and its methods are hooks (marked with `@hookimpl`) and the methods that its
kind requires.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lwmfw.errors import FOREIGN, shown


def _absolute(text: str) -> str:
    try:
        return text and str(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise ValueError(f"{error}") from error


@dataclass(frozen=True)
class Place:
    """What an option says of itself that names a folder or a file; `is_file` tells them apart."""

    is_file: bool


Folder = Annotated[str, AfterValidator(_absolute), Place(is_file=False)]
"""An option that names a folder: relative to the current directory, kept as an absolute path; empty stays empty."""

File = Annotated[str, AfterValidator(_absolute), Place(is_file=True)]
"""An option that names a file, likewise."""


class Options(BaseModel):
    """Base of a component's options: typed, frozen, every unknown key, inf and nan refused.

    Values come from TOML, which is typed already, so nothing is converted: "2" is not 2. Arrays are `list[...]`.
    Give every field a `description`; `lwmfw plugins NAME` prints it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Choice(BaseModel):
    """A table that names one component; the rest of its keys are the component's options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    use: str = Field(min_length=1, max_length=200, description="name of the component, or provider/name")

    def rest(self) -> dict[str, Any]:
        """The component's own options, not yet validated."""
        return dict(self.__pydantic_extra__ or {})


class DataChoice(Choice):
    """An option that names a data set besides the recipe's own, as [data] does; `run.load_data` loads it."""


class ObjectiveOptions(Options):
    """Options every objective has; the loop applies them, the objective only computes its loss."""

    over: Literal["new", "seen"] = Field("new", description="which classes the loss is taken over")
    weight: float = Field(1.0, ge=0, description="factor of the term")


@dataclass(frozen=True)
class Provider:
    """Where a component comes from: a distribution, or a plug-in file with its digest.

    Attributes:
        name: distribution name or file name; what stands before the slash in `use = "dist/name"`.
        version: of the distribution; empty for a file.
        path: of the file as a person would write it; empty for a distribution.
        sha256: of the file's content; empty for a distribution.
    """

    name: str
    version: str = ""
    path: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.name} {self.version}".strip()

    @property
    def record(self) -> str:
        """The provider as results.json states it; the same wherever the file lies."""
        return f"{self.name} sha256:{self.sha256}" if self.sha256 else str(self)


def _names(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, Collection) and all(isinstance(name, str) for name in names)


def _order(name: object, order: object) -> bool:
    return isinstance(name, str) and isinstance(order, Sequence) and all(type(label) is int for label in order)


@dataclass(frozen=True)
class Trait:
    """Something that a component's object, or its class, may say of itself, as an attribute.

    Attributes:
        name: of the attribute.
        kinds: that have it; empty: all.
        type: in words.
        holds: whether a value is of the type.
        default: what its absence means.
        meaning: what it is for.
    """

    name: str
    kinds: tuple[str, ...]
    type: str
    holds: Callable[[Any], bool]
    default: Any
    meaning: str

    @property
    def method(self) -> bool:
        """Whether it is a method."""
        return self.holds is callable


_SET = ("set of names", _names, frozenset[str]())
_FLAG = ("bool", lambda value: isinstance(value, bool), False)
_TEXT = ("text", lambda value: isinstance(value, str), "")
TRAITS = {
    each.name: each
    for each in (
        Trait("needs", (), *_SET, "what must be there: old, features, maps, raw_maps, pooled, ..."),
        Trait("offers", ("backbone", "classifier"), *_SET, "what others can need of it"),
        Trait(
            *("class_count", ("data",), "number or None", lambda value: value is None or type(value) is int, None),
            "classes, where that is known before loading",
        ),
        Trait(
            *("class_names", ("data",), "list of names or None"),
            *(lambda value: value is None or (isinstance(value, Sequence) and _names(value)), None),
            "by label, where they are known before loading",
        ),
        Trait(
            *("orders", ("data",), "table of name -> list of class numbers"),
            *(lambda value: isinstance(value, Mapping) and all(_order(*item) for item in value.items()), {}),
            "class orders that `scenario.order` can name",
        ),
        Trait("grows", ("rate",), *_FLAG, "it keeps more than the budget says"),
        Trait(
            *("least_classes", ("objective", "penalty"), "number", lambda value: type(value) is int and value > 0, 1),
            "the fewest classes over which its loss can say anything; of a penalty, old ones",
        ),
        Trait(
            *("least_new", ("penalty",), "number", lambda value: type(value) is int and value > 0, 1),
            "the fewest new classes that a step other than the last may have",
        ),
        Trait("none_of_these", ("objective",), *_FLAG, "labels below 0 are none of the classes"),
        Trait(
            "exact",
            ("readout",),
            *_FLAG,
            "its state is a sum over images, of features as the backbone has them; it has `add`",
        ),
        Trait(
            *("add", ("readout",), "method", callable, None),
            "add(state, classes, sign) takes in, or out, what another of its kind holds; classes: their places here",
        ),
        Trait(
            *("probability", ("readout",), *_TEXT),
            "what the softmax of its scores is; empty: its scores are no probabilities",
        ),
        Trait("spares_first_step", (), *_FLAG, "its hooks change nothing of the first step's training"),
        Trait(
            *("acts_first", ("backbone", "penalty"), *_FLAG),
            "its terms count in the first step too, where there is no old model",
        ),
        Trait("pauses", (), *_FLAG, "long work in its hooks calls run.pause, and its state says how far it has come"),
        Trait("state", (), "method", callable, None, "returns what checkpoints keep: tensors and plain values by name"),
        Trait("restore", (), "method", callable, None, "takes back what `state` returned"),
    )
}
"""Name -> trait; a component has those of its kind and those of all kinds."""


def trait(instance: Any, name: str) -> Any:
    """What an object says of itself, or what its silence means."""
    return as_trait(name, getattr(instance, name, TRAITS[name].default))


def as_trait(name: str, value: Any) -> Any:
    """The value of a trait as it is kept: sets of names as a frozenset."""
    if isinstance(TRAITS[name].default, frozenset):
        return frozenset([value] if isinstance(value, str) else value)
    return value


@dataclass(frozen=True)
class Component:
    """A thing that a recipe can name. Use the subclass of its kind.

    Attributes:
        name: what recipes write behind `use =`.
        factory: called with the validated options; returns a plain object, not an nn.Module.
        options: the options class.
        provider: filled in by the catalogue.
    """

    kind: ClassVar[str]
    table: ClassVar[str]
    """The recipe table that chooses components of this kind, dotted where it lies inside another."""
    listed: ClassVar[bool] = False
    """Whether a recipe can have several of the kind, so that the table is an array."""
    required_methods: ClassVar[Collection[str]] = ()
    required_hooks: ClassVar[Collection[str]] = ()
    required_options: ClassVar[type[Options]] = Options

    name: str
    factory: Callable[[Any], Any]
    options: type[Options] = Options
    provider: Provider = Provider("")

    @classmethod
    def article(cls) -> str:
        """Its kind with the article: a penalty, an observer."""
        return f"{'an' if cls.kind[0] in 'aeiou' else 'a'} {cls.kind}"

    @classmethod
    def heading(cls) -> str:
        """The table of its kind as a recipe writes it: [backbone], [[penalties]]."""
        return f"[[{cls.table}]]" if cls.listed else f"[{cls.table}]"

    @property
    def made_by(self) -> Any:
        """The class or function behind the factory."""
        return self.factory.func if isinstance(self.factory, partial) else self.factory

    @property
    def summary(self) -> str:
        """First line of the factory's docstring."""
        try:
            text = getattr(self.made_by, "__doc__", None)
        except FOREIGN:  # of a class whose docstring is computed
            text = None
        lines = text.strip().splitlines() if isinstance(text, str) else []
        return shown(lines[0], 200) if lines else ""


class Data(Component):
    """A data set. Its object has `class_count` (None if only loading tells) and `load() -> DataSet`.

    One that published results were measured on in a certain order of classes offers it by name in `orders`, a mapping
    from names to lists of labels; `scenario.order` takes the name. One that knows the names of its classes before it is
    loaded may state them in `class_names`, by label, so that `check` can tell a wrong one in `scenario.order`.
    """

    kind, table, required_methods = "data", "data", ("load",)


class Backbone(Component):
    """A network body. Its object has `offers` and `build(channels) -> nn.Module` returning `Features`.

    In evaluation mode the features of an image hang on that image alone: batches are filled up to one size.
    """

    kind, table, required_methods = "backbone", "backbone", ("build",)


class Classifier(Component):
    """A head. Its object has `build(features) -> nn.Module` with `grow(classes)`.

    One whose module has `similarities(features)`, the logits before a learned scale, sets `offers = {"similarities"}`;
    the scale is the module's `scale`, if it has one.
    """

    kind, table, required_methods = "classifier", "classifier", ("build",)


class Readout(Component):
    """Decides from features which class an image is of. Its object has `scores(features) -> (B, seen)`, float.

    It is fitted in the hook `after_training`, and never writes into the classifier that is trained and distilled. What
    its `state()` returns is counted as its bytes. One whose state is a sum over images sets `exact = True`: while the
    backbone stays as it is, learning classes one group after another is then learning them at once. Its state has
    `counts`, the images of each class, and `add(state, classes, sign)` takes in what another of its kind has summed up
    on the same backbone, whose classes have the places `classes` here (None: it has no image and gets none), or with a
    sign of -1 takes it out again.
    """

    kind, table, listed, required_methods = "readout", "readouts", True, ("scores",)


@dataclass(frozen=True)
class Objective(Component):
    """The classification loss L_C. Its object has `loss(logits, labels) -> scalar`; options extend ObjectiveOptions.

    One that takes labels below 0 as none of the classes sets `none_of_these = True`: over the new classes it can then
    be trained on exemplars too.
    """

    kind, table, required_methods = "objective", "objective", ("loss",)
    required_options = ObjectiveOptions

    options: type[Options] = ObjectiveOptions


class Penalty(Component):
    """What preserves old knowledge: mostly a term of the loss, by the hook `compute_penalty`. Its object has a hook."""

    kind, table, listed = "penalty", "penalties", True


class ExtraPhase(Component):
    """Trains on after the main phase of a step. Its object implements the hook `plan_phases`."""

    kind, table, listed, required_hooks = "phase", "phases", True, ("plan_phases",)


class Selector(Component):
    """Chooses the exemplars. Its object implements the hook `select_memory`."""

    kind, table, required_hooks = "selector", "memory.select", ("select_memory",)


class Rate(Component):
    """Shares the budget out among the classes. Its object implements the hook `allocate_memory`.

    One that keeps more than the budget says sets `grows = True`.
    """

    kind, table, required_hooks = "rate", "memory.rate", ("allocate_memory",)


class Refiner(Component):
    """Changes exemplars that were selected. Its object implements the hook `select_memory` as a wrapper."""

    kind, table, listed, required_hooks = "refiner", "memory.refine", True, ("select_memory",)


class Codec(Component):
    """Turns exemplars into the bytes that are stored and counted.

    Its object has `encode(pixels) -> list[bytes]` for uint8 images (N, C, H, W), their inverse
    `decode(encoded, shape) -> (N, C, H, W)` for a shape (C, H, W), and `shared_bytes(shape)`, what such images
    share and the memory holds once.

    Photographs are encoded and decoded in worker processes, by copies that are made by pickling. The main process does
    it itself, and more slowly, where that cannot be done: the object does not pickle, or its class comes from a plug-in
    file and the workers are spawned, so that they do not know it.
    """

    kind, table, required_methods = "codec", "memory.codec", ("encode", "decode", "shared_bytes")


class Observer(Component):
    """Watches a run through hooks and changes nothing."""

    kind, table, listed = "observer", "observers", True


KINDS: tuple[type[Component], ...] = (
    *(Data, Backbone, Classifier, Objective, Penalty, ExtraPhase),
    *(Readout, Selector, Rate, Refiner, Codec),
    Observer,
)
"""In the order in which their hooks are called."""
