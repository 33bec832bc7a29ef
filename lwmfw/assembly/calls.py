"""The hooks of a component as pluggy calls them: with the component's own random numbers, and failures told where."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw.errors import LwmfwError, RunFailed
from lwmfw.recipe.catalogue import describe

if TYPE_CHECKING:
    import torch


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

    def of_component(self, name: str) -> torch.Generator:
        """The generator of the component called `name` in the current step and phase."""
        from lwmfw.rng import generator

        moment = (self._position.step, self._position.phase)
        if moment != self._moment:
            self._moment, self._generators = moment, {}
        if name not in self._generators:
            self._generators[name] = generator(self._seed, "component", *moment, name)
        return self._generators[name]


class Adapter:
    """What pluggy sees of a component: its hooks, each of which gives the component its own rng and, when it fails,
    says where. Registering this object rather than the component spares pluggy comparing components by `==`.
    """

    def __init__(
        self, instance: Any, name: str, provider: str, position: Position, hooks: Iterable[str], prefix: str = ""
    ) -> None:
        for hook in hooks:
            setattr(self, hook, guarded(instance, name, provider, position, hook, prefix))


def guarded(
    instance: Any, name: str, provider: str, position: Position, method_name: str, prefix: str = ""
) -> Callable[..., Any]:
    """A component's method that is given its own rng and whose failure names provider, method and position."""
    method = getattr(instance, method_name)
    arguments = list(inspect.signature(method).parameters)
    rng = arguments.index("rng") if "rng" in arguments else None

    def own_rng(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if rng is None:
            return values
        source: Randomness = values[rng]
        return (*values[:rng], source.of_component(name), *values[rng + 1 :])

    @contextmanager
    def told_where() -> Iterator[None]:
        underway = sys.exception()
        try:
            yield
        except LwmfwError:
            raise
        except Exception as error:
            place = place_in(error, provider, instance) or provider
            failure = f"{place}: {type(instance).__name__}.{method_name} raised {describe(error)}"
            if underway is None:
                raise RunFailed(f"{failure}; the run stopped {position}") from error
            underway.add_note(failure)  # after_run after an exception must not hide it

    @functools.wraps(method)  # pluggy reads the argument names through it
    def call(*values: Any) -> Any:
        returned = None
        with told_where():
            returned = method(*own_rng(values))
        if method_name == "compute_penalty" and returned is not None:
            return _checked_terms(returned, prefix, f"{provider}: {name}.{method_name}", position)
        return returned

    @functools.wraps(method)
    def wrap(*values: Any) -> Generator[Any, Any, Any]:
        with told_where():
            return (yield from method(*own_rng(values)))

    marked = getattr(method, "lwmfw_impl", None) or {}
    return wrap if marked.get("wrapper") else call


def place_in(error: BaseException, provider: str, instance: Any) -> str:
    """Provider and line of the innermost frame in the file, or the package, that an instance's class comes from."""
    root = type(instance).__module__.partition(".")[0]
    source = getattr(sys.modules.get(root), "__file__", None)
    if source is None:
        return ""
    home = Path(source).resolve()
    home = home.parent if home.name == "__init__.py" else home
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = Path(frame.f_code.co_filename).resolve()
        if code == home or home in code.parents:
            place = f"{provider}:{line}" if provider.endswith(".py") else f"{provider}: {code.name}:{line}"
    return place


def _checked_terms(returned: object, prefix: str, who: str, position: Position) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        raise RunFailed(
            f"{who} returned {type(returned).__name__}; return a dict of name -> scalar; the run stopped {position}"
        )
    for term, value in returned.items():
        if not isinstance(term, str):
            raise RunFailed(f"{who}: a term is named {term!r}; name it by a string; the run stopped {position}")
        if getattr(value, "shape", None) != () or not value.is_floating_point():
            what = f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
            raise RunFailed(
                f"{who}: term {term!r} is no scalar tensor but {what}; reduce it; the run stopped {position}"
            )
    return {prefix + term: value for term, value in returned.items()}
