"""Results and their measures, one definition each.

average incremental accuracy: mean over steps, step 1 included, of the top-1 accuracy on all seen classes.
forgetting: mean over the steps before the last of (best accuracy on that step's classes at any step before the last,
minus their accuracy at the end); None with a single step.
backward transfer: mean over the steps before the last of (accuracy on that step's classes at the end, minus their
accuracy when they were learned); None with a single step (GEM, Lopez-Paz and Ranzato, NeurIPS 2017).
new-class accuracy: mean over steps, step 1 included, of the accuracy on that step's classes when they were learned,
decided among all seen classes (learning accuracy, Riemer et al., ICLR 2019).
task-aware accuracy: top-1 accuracy on all seen classes where the choice is among the classes of the image's own step,
as for a method that is told the step; over all steps, that of the last one.
What could not be measured, as there are no test images of a class or the read-out was not there, is None and left
out of means.
first-step forgetting: the fall of the accuracy on the first step's classes from that step to the last (Mnemonics,
Liu et al., CVPR 2020); None with a single step.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from lwmfw.errors import harmless
from lwmfw.record.forms import Certificate, Classes, Count, DataFacts, Seconds, Share, Source

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 1
_OPTIONAL = ("settings", "first_step", "sources", "data", "files", "mended", "drift")
_MEASURES = (
    *("average_incremental_accuracy", "last_accuracy", "forgetting", "first_step_forgetting"),
    *("backward_transfer", "new_class_accuracy", "task_aware_accuracy"),
)
MATRIX_CLASSES = 100
"""Results hold the confusion matrices of steps that have seen at most so many classes, and of the last step. Those of
other steps lie in confusion/step-N.json: results are written anew after each step, and matrices grow by the square."""
_KNOWN = {"extra": "forbid", "allow_inf_nan": False}
"""How pydantic reads results: keys of another format are refused, and numbers that are none."""


@dataclass
class StepResult:
    """What was measured after a step. Dictionaries are by read-out; confusion rows are true classes, both in
    class order; empty where it lies in a file of its own (MATRIX_CLASSES). `readouts` has of each with a state whether
    it is exact, and digests of its statistics and of the backbone. `extra` is for observers: component name -> plain
    values of its own. `epochs` are those of all phases; 0: not known, or none. `part_seconds` is what each part of the
    step took: before the first phase, each phase by name, what follows the phases, and evaluation."""

    __pydantic_config__ = _KNOWN

    step: int
    new_classes: list[Count]
    seen: Classes
    accuracy: dict[str, Share | None]
    accuracy_top5: dict[str, Share | None]
    accuracy_by_step: dict[str, list[Share | None]]
    confusion: dict[str, list[list[Count]]]
    parameters: Count
    model_bytes: Count
    exemplars: Count
    memory_bytes: Count
    train_seconds: Seconds
    accuracy_task_aware: dict[str, Share | None] = field(default_factory=dict)
    readout_bytes: dict[str, Count] = field(default_factory=dict)
    readouts: dict[str, Certificate] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    epochs: Count = 0
    part_seconds: dict[str, Seconds] = field(default_factory=dict)


@dataclass
class Results:
    """The content of results.json.

    `settings`: a digest of what the recipe settles besides the seed; runs that have it in common are seeds of one
    variant. `first_step`: the recipe and checkpoint, or the weights, that the first step was taken from. `sources`:
    of a run that goes on from another, which images each of them has learned from, oldest first. `data`: class names,
    counts and digests of the data set. `files`: SHA-256 of files that components read, such as initial weights, by
    dotted key. `mended`: of a run that went on with other plug-in files, how many steps the former ones have computed.
    `drift`: in what it went on otherwise than before as it was allowed to, from which step on, and how that was and is.
    """

    __pydantic_config__ = _KNOWN

    recipe: str
    seed: Count
    classes_order: list[Count]
    class_names: list[str]
    providers: dict[str, str]
    complete: bool = False
    steps: list[StepResult] = field(default_factory=list)
    settings: str = ""
    first_step: dict[str, Any] | None = None
    sources: list[Source] = field(default_factory=list)
    data: DataFacts | None = None
    files: dict[str, str] = field(default_factory=dict)
    mended: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def average_incremental_accuracy(self) -> dict[str, float | None]:
        """Per classifier, 0..1; empty before the first step has ended."""
        return {who: average([s.accuracy.get(who) for s in self.steps]) for who in self._classifiers()}

    @property
    def last_accuracy(self) -> dict[str, float | None]:
        """Accuracy on all seen classes after the last finished step."""
        return {who: self.steps[-1].accuracy.get(who) for who in self._classifiers()}

    @property
    def forgetting(self) -> dict[str, float | None]:
        """Per classifier; None with fewer than two steps."""
        return {who: forgetting(self._by_step(who)) for who in self._classifiers()}

    @property
    def backward_transfer(self) -> dict[str, float | None]:
        """Likewise."""
        return {who: backward_transfer(self._by_step(who)) for who in self._classifiers()}

    @property
    def new_class_accuracy(self) -> dict[str, float | None]:
        """Per classifier, 0..1."""
        return {who: average([row[-1] for row in self._by_step(who)]) for who in self._classifiers()}

    @property
    def first_step_forgetting(self) -> dict[str, float | None]:
        """Likewise."""
        return {who: first_step_forgetting(self._by_step(who)) for who in self._classifiers()}

    @property
    def task_aware_accuracy(self) -> dict[str, float | None]:
        """Of the last step, per classifier."""
        return {who: self.steps[-1].accuracy_task_aware.get(who) for who in self._classifiers()}

    def after(self, step: int) -> Results:
        """The results as they were after a step, counted from 1."""
        return replace(self, steps=self.steps[:step])

    def _classifiers(self) -> list[str]:
        return list(dict.fromkeys(who for step in self.steps for who in step.accuracy))

    def _by_step(self, who: str) -> list[list[float | None]]:
        return [s.accuracy_by_step.get(who, [None] * s.step) for s in self.steps]

    def copied(self) -> Results:
        """The same, which further steps do not change."""
        steps = [replace(step, extra=copy.deepcopy(step.extra)) for step in self.steps]
        return replace(copy.deepcopy(replace(self, steps=[])), steps=steps)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the measures over all steps; they are not for changing, being the results' own."""
        names = ["schema", "recipe", "seed", "classes_order", "class_names", "complete", "providers"]
        names += [name for name in _OPTIONAL if getattr(self, name)]
        plain = {name: getattr(self, name) for name in names} | {"steps": [dict(vars(step)) for step in self.steps]}
        return plain | {name: getattr(self, name) for name in _MEASURES}

    def to_text(self) -> str:
        """`to_json` as results.json has it: a line for each step, which can be long."""
        plain = self.to_json()
        steps = ",\n".join(f"  {json.dumps(step, allow_nan=False)}" for step in plain["steps"])
        rest = json.dumps(plain | {"steps": None}, indent=1, allow_nan=False)
        return rest.replace('\n "steps": null', f'\n "steps": [\n{steps}\n ]') + "\n"

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Results:
        """The inverse of `to_json`; raises ValueError, KeyError or TypeError where the content is another."""
        if plain["schema"] != SCHEMA:
            raise ValueError(f"schema {plain['schema']}")
        known = {f.name: plain[f.name] for f in fields(cls) if f.name in plain or f.name not in _OPTIONAL}
        results = _reader().validate_python(known)
        for number, step in enumerate(results.steps, 1):
            alike = step.accuracy.keys() == step.accuracy_by_step.keys()
            whole = alike and all(len(values) == number for values in step.accuracy_by_step.values())
            if step.step != number or not step.accuracy or not whole:
                raise ValueError(f"step {number} is incomplete")
        return results


@cache
def _reader() -> TypeAdapter[Results]:
    """What sees that every value is of the type it has to be; made when it is first needed."""
    from pydantic import TypeAdapter

    return TypeAdapter(Results)


def average(values: Sequence[float | None]) -> float | None:
    """Arithmetic mean of what was measured."""
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def accuracy(confusion: Sequence[Sequence[int]], classes: range) -> float | None:
    """Share of the images of `classes` that are assigned their own class; None if one of them has no images."""
    images = [sum(confusion[c]) for c in classes]
    return sum(confusion[c][c] for c in classes) / sum(images) if images and all(images) else None


def forgetting(by_step: Sequence[Sequence[float | None]]) -> float | None:
    """Mean drop from the best earlier accuracy of each earlier step's classes.

    Args:
        by_step: row t: after step t, accuracy on the classes of each step so far.
    """
    return forgettings(by_step)[-1] if by_step else None


def forgettings(by_step: Sequence[Sequence[float | None]]) -> list[float | None]:
    """What `forgetting` is after each step."""
    found: list[float | None] = []
    best: list[float | None] = []
    for row in by_step:
        both = zip(best, row, strict=False)  # the newest classes have no earlier accuracy
        found.append(average([b - now if b is not None and now is not None else None for b, now in both]))
        best = [max((v for v in pair if v is not None), default=None) for pair in zip_longest(best, row)]
    return found


def backward_transfer(by_step: Sequence[Sequence[float | None]]) -> float | None:
    """Mean change of the accuracy on each earlier step's classes since they were learned; negative: they are forgotten.

    Args:
        by_step: as in `forgetting`.
    """
    learned = ((row[-1], end) for row, end in zip(by_step[:-1], by_step[-1] if by_step else [], strict=False))
    return average([end - then if end is not None and then is not None else None for then, end in learned])


def first_step_forgetting(by_step: Sequence[Sequence[float | None]]) -> float | None:
    """Fall of the accuracy on the first step's classes.

    Args:
        by_step: as in `forgetting`.
    """
    if len(by_step) < 2 or by_step[0][0] is None or by_step[-1][0] is None:
        return None
    return by_step[0][0] - by_step[-1][0]


def told(value: float | None, digits: int = 3) -> str:
    """A measure as tables have it; empty: not measured."""
    return "" if value is None else f"{value:.{digits}f}"


def cell(text: str) -> str:
    """A person's text as a cell of a CSV file, which no spreadsheet takes for a formula and no terminal for a command;
    one that begins as a formula does has an apostrophe before it."""
    return f"'{harmless(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else harmless(text)


def accuracy_csv(runs: Mapping[str, Results]) -> str:
    """Tidy accuracies: one line per run, step, classifier and group of classes ("all", or the step that brought
    them). Lines of all classes also have the measures over all steps so far. The column `run` is left out for a run
    without a name."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = any(runs)
    header = ["recipe", "seed", "step", "seen", "classifier", "classes_of", "accuracy", *_SO_FAR]
    writer.writerow([*["run"] * named, *header])
    for name, run in runs.items():
        forgotten = {who: forgettings(run._by_step(who)) for who in run._classifiers()}
        for step in run.steps:
            then, forgotten_then = run.after(step.step), {who: after[step.step - 1] for who, after in forgotten.items()}
            learned = then.average_incremental_accuracy, forgotten_then, then.backward_transfer
            so_far = (*learned, then.task_aware_accuracy, then.new_class_accuracy)
            for who, value in step.accuracy.items():
                row = [*[cell(name)] * named, cell(run.recipe), run.seed, step.step, step.seen, cell(who)]
                writer.writerow([*row, "all", told(value, 6), *(told(measure[who], 6) for measure in so_far)])
                for group, part in enumerate(step.accuracy_by_step[who], 1):
                    writer.writerow([*row, f"step {group}", told(part, 6), *[""] * len(_SO_FAR)])
    return stream.getvalue()


_SO_FAR = ("average", "forgetting", "backward_transfer", "task_aware", "new_classes")
"""Columns of `accuracy_csv` that hold a measure over all steps so far."""
