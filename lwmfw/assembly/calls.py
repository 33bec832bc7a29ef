"""How a component is called: with its own name and random numbers; what it answers is checked, and what fails is told
where. Nothing else calls a hook or a method of a kind."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw import hookspecs
from lwmfw.assembly.answers import BEFORE, HOOKS, METHODS, Offered, nothing
from lwmfw.components import Component
from lwmfw.errors import FOREIGN, LwmfwError, RunFailed, UserError, WrongAnswer, describe, is_out_of_memory, one_line
from lwmfw.hookspecs import SPECS

GATHERED = frozenset({"plan_phases", "group_parameters", "compute_penalty"})
"""Hooks whose answers are put together: pairs of the component and its answer, so that two at odds can be named."""

_LENT = frozenset({"data", "batch", "candidates"})
"""Arguments of hooks that hold images, which are for looking at."""

if TYPE_CHECKING:
    import torch

    from lwmfw.recipe.load import Chosen


@dataclass
class Position:
    """Where the run is; named by every error inside a plug-in. Zero: not there yet."""

    step: int = 0
    phase: str = ""
    epoch: int = 0
    batch: int = 0

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in ("step", "epoch", "batch")]
        text = ", ".join(f"{name} {value}" for name, value in parts if value)
        return f"in {text}" if text else "before the first step"


class Randomness:
    """Gives every component its own generator, renewed at every step and phase."""

    def __init__(self, seed: int, position: Position) -> None:
        self._seed, self._position = seed, position
        self._moment: tuple[int, str] | None = None
        self._generators: dict[str, torch.Generator] = {}

    def renew(self) -> None:
        """Have everything drawn anew, as at the beginning of the current step and phase."""
        self._moment = None

    def of_component(self, name: str) -> torch.Generator:
        """The generator of the component called `name` in the current step and phase."""
        from lwmfw.rng import generator

        moment = (self._position.step, self._position.phase)
        if moment != self._moment:
            self._moment, self._generators = moment, {}
        if name not in self._generators:
            self._generators[name] = generator(self._seed, "component", *moment, name)
        return self._generators[name]

    def state(self) -> dict[str, Any]:
        """Where the generators stand: the step and phase that they are of, and each one's state by its component."""
        return {"[moment]": self._moment} | {name: each.get_state() for name, each in self._generators.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put them there, from a dictionary that may hold other things with a name in brackets."""
        from lwmfw.rng import generator

        self._moment = tuple(state["[moment]"]) if state["[moment]"] else None
        self._generators = {name: generator(0) for name in state if not name.startswith("[")}
        for name, each in self._generators.items():
            each.set_state(state[name])


@dataclass(frozen=True)
class Attached:
    """A component in a run.

    Attributes:
        instance: what its factory made.
        name: within the recipe.
        chosen: the choice it was made from.
        traits: what it says of itself, of the table in components.py; read once.
        hooks: the names of those it implements.
        position: where the run is.
        prefix: of its terms; empty unless its component is used twice.
    """

    instance: Any
    name: str
    chosen: Chosen
    traits: Mapping[str, Any]
    hooks: frozenset[str]
    position: Position
    prefix: str = ""

    @property
    def record(self) -> Component:
        """The record of what was chosen."""
        return self.chosen.component

    @property
    def provider(self) -> str:
        """Where the component comes from, for messages."""
        return str(self.record.provider)

    def trait(self, name: str) -> Any:
        """One of its traits."""
        return self.traits[name]

    def method(self, name: str) -> Callable[..., Any]:
        """A method of its kind, its answer checked."""
        method = getattr(self.instance, name)
        check = METHODS.get(f"{self.record.kind}.{name}") or METHODS.get(name)

        def call(*arguments: Any) -> Any:
            with self._told_where(name):
                answer = method(*arguments)
                if check is not None:
                    self._refuse(name, check(answer, *arguments))
            return answer

        return call

    def hook(self, name: str) -> Callable[..., Any]:
        """A hook as pluggy calls it, with everything its specification offers; its answer checked."""
        method = getattr(self.instance, name)
        wanted, marked = inspect.signature(method).parameters, marker(type(self.instance), name)

        def own(values: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
            offered = dict(zip(SPECS[name], values, strict=True))
            offered["name"] = self.name
            if "rng" in wanted:
                offered["rng"] = offered["rng"].of_component(self.name)
            given = {argument: offered[argument] for argument in wanted}
            return offered | {"before": BEFORE[name](offered) if name in BEFORE else None}, given

        def call(*values: Any) -> Any:
            offered, given = own(values)
            answer, lent = None, _lent(given)
            with self._told_where(name, _failed(name, offered)):
                answer = self._checked(name, method(**given), offered)
                self._refuse(name, _changed(lent))
            return answer if answer is None or name not in GATHERED else (self, answer)

        def wrap(*values: Any) -> Generator[Any, Any, Any]:
            offered, given = own(values)
            with self._told_where(name):
                refining = method(**given)
                self._refuse(name, "" if _advanced(refining, None) is None else "returned before its yield; yield once")
            try:
                selection = yield
            except BaseException:
                refining.close()
                raise
            with self._told_where(name):
                finished = _advanced(refining, selection)
                self._refuse(name, "" if finished else "yields more than once; yield once, then return a Selection")
                return self._checked(name, finished and finished.value, offered)

        relayed: Callable[..., Any] = wrap if marked and marked["wrapper"] else call
        # pluggy hands over what the function behind __wrapped__ names
        vars(relayed).update(__wrapped__=getattr(hookspecs, name), lwmfw_impl=marked)
        return relayed

    def _checked(self, hook: str, answer: Any, offered: Offered) -> Any:
        question = HOOKS.get(hook, nothing)
        yields = answer is None and hook not in self.record.required_hooks  # another component may know
        if not yields or question in (nothing, HOOKS["after_step"]):
            self._refuse(hook, question(answer, offered))
        if hook == "compute_penalty" and answer is not None:
            return {self.prefix + term: value for term, value in answer.items()}
        return answer

    def _refuse(self, method: str, fault: str) -> None:
        if fault:
            raise self.failure(f"{self.provider}: {self.name}.{method} {fault}")

    def failure(self, what: str) -> RunFailed:
        """What to report when a component has failed in the run."""
        return RunFailed(f"{what}; the run stopped {self.position}")

    @contextmanager
    def _told_where(self, method: str, failed: BaseException | None = None) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            told = self._told(method, error)
            if failed is not None:
                failed.add_note(str(told))
            elif told is error:
                raise
            else:
                raise told from error

    def _told(self, method: str, error: BaseException) -> BaseException:
        """The error that a person is to see for one that came out of a method."""
        if is_out_of_memory(error):
            return error  # it is nobody's fault
        known = isinstance(error, LwmfwError | WrongAnswer) and type(error) is not LwmfwError
        if known and not raised_in(error, self.instance):
            return error  # told already, or of a network that was asked
        if isinstance(error, UserError):
            return UserError(f"{self.provider}: {self.name}: {one_line(error)}")
        place = place_in(error, self.provider, self.instance) or self.provider
        return self.failure(f"{place}: {type(self.instance).__name__}.{method} raised {describe(error)}")


def marker(owner: type, name: str) -> dict[str, Any] | None:
    """What @hookimpl left on a method, below or above another decorator; None: it is not marked."""
    static = inspect.getattr_static(owner, name)  # looked up without being run: a property is no hook
    marked = getattr(static, "lwmfw_impl", None) or getattr(getattr(static, "__func__", None), "lwmfw_impl", None)
    return marked if isinstance(marked, dict) else None


def _advanced(generator: Generator[Any, Any, Any], value: Any) -> StopIteration | None:
    """What a generator ends with when it is sent a value; None: it waits for another."""
    try:
        generator.send(value)
    except StopIteration as finished:
        return finished
    return None


def _lent(given: Mapping[str, Any]) -> list[tuple[str, Any, int]]:
    """The tensors of images that a hook is given: what they are of, and how often each has been changed in place."""
    return [
        (f"{argument}.{name}", value, value._version)
        for argument in _LENT & given.keys()
        for name, value in vars(given[argument]).items()
        if hasattr(value, "_version")
    ]


def _changed(lent: Iterable[tuple[str, Any, int]]) -> str:
    changed = [what for what, value, version in lent if value._version != version]
    return f"changed {changed[0]} in place, which others are given too; change a copy" if changed else ""


def _failed(hook: str, offered: Offered) -> BaseException | None:
    """What has ended the run, which nothing that goes wrong in after_run may hide."""
    return sys.exception() if hook == "after_run" and not offered["results"].complete else None


class Adapter:
    """What pluggy sees of a component: its hooks, called as above.

    Registering this object rather than the component spares pluggy comparing components by `==`.
    """

    def __init__(self, attached: Attached, hooks: Iterable[str]) -> None:
        for hook in hooks:
            setattr(self, hook, attached.hook(hook))


def raised_in(error: BaseException, instance: Any) -> bool:
    """Whether an error was raised in the file, or the package, that an instance's class comes from."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _at_home(frame.f_code.co_filename, _home(instance))


def place_in(error: BaseException, provider: str, instance: Any) -> str:
    """Provider and line of the innermost frame in the file, or the package, that an instance's class comes from."""
    home, place = _home(instance), ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _at_home(frame.f_code.co_filename, home):
            file = Path(frame.f_code.co_filename).name
            place = f"{provider}:{line}" if provider.endswith(".py") else f"{provider}: {file}:{line}"
    return place


def _home(instance: Any) -> Path | None:
    root = type(instance).__module__.partition(".")[0]
    source = getattr(sys.modules.get(root), "__file__", None)
    if source is None:
        return None
    home = Path(source).resolve()
    return home.parent if home.name == "__init__.py" else home


def _at_home(file: str, home: Path | None) -> bool:
    code = Path(file).resolve()
    return home is not None and (code == home or home in code.parents)
