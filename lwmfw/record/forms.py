"""What results hold as plain values has to be of these forms; keys that are not looked at are left as they are."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, RootModel, ValidationError, model_validator

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things, or of one in an order; no machine has more."""

Classes = Annotated[int, Field(ge=0, le=1_000_000)]
"""How many classes; as many as a recipe may name."""

Share = Annotated[float, Field(ge=0, le=1)]
"""Of images."""

Seconds = Annotated[float, Field(ge=0, le=1e12)]
"""That something took."""


class _Images(BaseModel, strict=True):
    """How many images each class has, and the beginnings of their digests."""

    images: list[Count]
    sha256: list[str]


class _Data(BaseModel, strict=True):
    """What is stated of a data set."""

    sha256: str
    class_names: list[str]
    train: _Images
    test: _Images

    @model_validator(mode="after")
    def _of_each_class(self) -> _Data:
        lists = (self.train.images, self.train.sha256, self.test.images, self.test.sha256)
        if any(len(each) != len(self.class_names) for each in lists):
            raise ValueError("not one for each class")
        return self


class _Table(BaseModel, strict=True):
    """A [data] that images were learned from."""

    use: str
    root: str = ""

    @model_validator(mode="after")
    def _as_a_place(self) -> _Table:
        if "\0" in self.root:
            raise ValueError("no place")
        return self


class _Source(BaseModel, strict=True):
    """What was learned from."""

    data: _Table
    validation: float
    seed: int


class _Retracted(BaseModel, strict=True, extra="forbid"):
    """What was taken out again on trust."""

    retracted: str


class _Certificate(BaseModel, strict=True):
    """What is stated of a read-out with a state; of one from sums, whether it is exact too."""

    statistics: str
    backbone: str
    exact: bool = False


def _of(form: type[BaseModel]) -> AfterValidator:
    """Has a dictionary looked at, which stays as it is."""

    def seen(value: dict[str, Any]) -> dict[str, Any]:
        form.model_validate(value)
        return value

    return AfterValidator(seen)


DataFacts = Annotated[dict[str, Any], _of(_Data)]
Source = Annotated[dict[str, Any], _of(RootModel[_Source | _Retracted])]
Certificate = Annotated[dict[str, Any], _of(_Certificate)]


class _Component(BaseModel, strict=True):
    """A component that a recipe chooses."""

    use: str
    as_: str = Field("", alias="as")


class _Tables(BaseModel, strict=True):
    """A resolved recipe, of which no more is looked at than every reader takes for granted."""

    plugins: list[str]
    data: dict[str, Any] = {}
    scenario: dict[str, Any] = {}
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    penalties: list[_Component] = []
    phases: list[_Component] = []
    readouts: list[_Component] = []
    observers: list[_Component] = []


def fault_of(tables: dict[str, Any]) -> str:
    """In what tables are none of a resolved recipe; empty: they may be."""
    try:
        _Tables.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""
