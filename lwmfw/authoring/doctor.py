"""What is wrong with the plug-ins that are installed, and with what they stand on."""

from __future__ import annotations

import importlib.util
import inspect
import os
import platform
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from pathlib import Path

from lwmfw.assembly.assemble import build
from lwmfw.assembly.contract import unknown_need
from lwmfw.components import Component
from lwmfw.errors import FOREIGN, UserError, describe, did_you_mean, one_line, shown
from lwmfw.recipe.catalogue import GROUP, Catalogue, add_file, add_installed, distribution, installed_plugins

LIBRARIES = ("lwmfw", "torch", "torchvision", "numpy", "pluggy", "pydantic")
PURPOSES = {
    "onnx": "lwmfw export --format onnx",
    "timm": "backbone timm",
    **{name: f"observer {name}" for name in ("tensorboard", "trackio", "wandb", "mlflow")},
    "slurm": "lwmfw sweep --slurm",
    "docs": "the pages of docs/",
    "test": "lwmfw's own tests",
    "dev": "changes of lwmfw itself",
}
"""Extra of lwmfw -> what it is for."""


@dataclass(frozen=True)
class Extra:
    """Optional libraries: what they are for, and which of them are not there."""

    name: str
    purpose: str
    missing: list[str]


@dataclass(frozen=True)
class Plugin:
    """A plug-in, and why it does not load; empty: it does.

    Attributes:
        provider: its distribution and version, or its file.
        found_by: its entry point, or --plugins.
        components: how many it registers.
        fault: in one line.
        place: in its code, as far as that is known.
    """

    provider: str
    found_by: str
    components: int
    fault: str
    place: str


@dataclass(frozen=True)
class Examined:
    """A component that is not lwmfw's, and why no recipe can have it; empty: one can.

    Attributes:
        required: options without a default, for want of which it was not built.
        fault: in one line.
        place: in its code, as far as that is known.
    """

    kind: str
    name: str
    provider: str
    required: list[str]
    fault: str
    place: str


@dataclass(frozen=True)
class Shared:
    """A name that several components of a kind have, and what recipes write to say which."""

    kind: str
    name: str
    use: list[str]


@dataclass(frozen=True)
class Report:
    """What there is, and what is wrong with it."""

    environment: dict[str, str]
    extras: list[Extra]
    plugins: list[Plugin]
    components: list[Examined]
    shared: list[Shared]

    @property
    def faults(self) -> int:
        """How many are broken; a name that two components have is wrong only where a recipe uses it."""
        faults = [each.fault for each in self.plugins] + [each.fault for each in self.components]
        return len(list(filter(None, faults)))


def examine(files: Sequence[Path] = ()) -> Report:
    """Load every plug-in, and build each component that is not lwmfw's own, as a recipe without options does."""
    catalogue = Catalogue()
    with redirect_stdout(sys.stderr):  # what they print is no part of what is told
        plugins = [_installed(catalogue, point) for point in installed_plugins()]
        plugins += [_file(catalogue, file) for file in files]
        plugins += [_unread(point) for group in _misspelt_groups() for point in entry_points(group=group)]
        components = [_examined(each) for each in catalogue.components if each.provider.name != "lwmfw"]
    return Report(environment(), extras(), plugins, components, shared(catalogue.components))


def environment() -> dict[str, str]:
    """Versions and hardware, by name."""
    import torch

    from lwmfw.engine.build import computes_bf16

    cuda = torch.cuda.is_available()
    native = computes_bf16(torch.device("cuda" if cuda else "cpu"))
    return {
        "python": f"{platform.python_version()}, {platform.platform()}",
        **{name: _version(name) or "not installed" for name in LIBRARIES},
        "CUDA": f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if cuda else "torch sees no device",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
        "bf16": 'native: precision = "auto" is bf16' if native else 'not native: precision = "auto" is fp32',
    }


def extras() -> list[Extra]:
    """The extras of lwmfw as it is installed."""
    libraries: dict[str, list[str]] = {}
    for line in requires("lwmfw") or ():
        found = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)", line)
        if found and found[1] != "lwmfw":  # an extra that has another in it
            libraries.setdefault(found[2], []).append(found[1])
    return [
        Extra(name, PURPOSES.get(name, ""), [library for library in wanted if not _version(library)])
        for name, wanted in libraries.items()
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _installed(catalogue: Catalogue, point: EntryPoint) -> Plugin:
    provider, found_by = str(distribution(point)), f"{point.name} = {point.value}"
    return _loaded(catalogue, partial(add_installed, catalogue, point), provider, found_by, _homes(point))


def _file(catalogue: Catalogue, file: Path) -> Plugin:
    return _loaded(catalogue, partial(add_file, catalogue, str(file)), str(file), "--plugins", [str(file.resolve())])


def _unread(point: EntryPoint) -> Plugin:
    fault = f"nothing reads the group '{shown(point.group)}'; write [project.entry-points.{GROUP}] in pyproject.toml"
    return Plugin(str(distribution(point)), f"{point.name} = {point.value}", 0, fault, "")


def _misspelt_groups() -> list[str]:
    return sorted(g for g in entry_points().groups if g != GROUP and (GROUP in g.lower() or did_you_mean(g, [GROUP])))


def _loaded(
    catalogue: Catalogue, add: Callable[[], None], provider: str, found_by: str, homes: Sequence[str]
) -> Plugin:
    before, fault, place = len(catalogue.components), "", ""
    try:
        add()
    except FOREIGN as error:
        fault, place = _fault(error, provider), _place(error, homes) or next(iter(homes), "")
    return Plugin(provider, found_by, len(catalogue.components) - before, fault, place)


def _examined(component: Component) -> Examined:
    """What `check` would say of a recipe that names the component and no options."""
    who, fault, place = str(component.provider), "", ""
    required = [field.alias or name for name, field in component.options.model_fields.items() if field.is_required()]
    if not required:
        try:
            traits = build(component, component.options()).traits
            unknown = [words for need in sorted(traits["needs"]) if (words := unknown_need(need))]
            if unknown:
                raise UserError(f"{component.name} needs {unknown[0]}")
        except FOREIGN as error:
            file, line = _source(component)
            fault, place = _fault(error, who), _place(error, [file]) or f"{file}:{line}"
    return Examined(component.kind, component.name, who, required, fault, place)


def shared(components: Sequence[Component]) -> list[Shared]:
    """The names that several components of a kind have."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in components:
        found.setdefault((each.kind, each.name), []).append(f"{each.provider.name}/{each.name}")
    return [Shared(kind, name, use) for (kind, name), use in found.items() if len(use) > 1]


def _fault(error: BaseException, provider: str) -> str:
    """What an error says, without the provider that is told beside it."""
    return one_line(error).removeprefix(f"{provider}: ") if isinstance(error, UserError) else describe(error)


def _place(error: BaseException, homes: Sequence[str]) -> str:
    """Where below some folders or files an error came from, as file:line; empty: it did not."""
    error = error.__cause__ or error
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if each.filename.startswith(tuple(filter(None, homes)))
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _homes(point: EntryPoint) -> list[str]:
    """Where the code of an installed plug-in lies: its folders, or its file."""
    try:
        spec = importlib.util.find_spec(point.module.partition(".")[0])
    except FOREIGN:
        spec = None
    if spec is None:
        return []
    return [f"{each}{os.sep}" for each in spec.submodule_search_locations or ()] or [spec.origin or ""]


def _source(component: Component) -> tuple[str, int]:
    """File and line of what makes a component; none, where Python does not know."""
    try:
        return inspect.getsourcefile(component.made_by) or "", inspect.getsourcelines(component.made_by)[1]
    except FOREIGN:
        return "", 0
