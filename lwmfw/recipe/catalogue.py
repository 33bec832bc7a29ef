"""The catalogue: which components exist, who provides them, and what failed to load.

Discovery is the same on every machine: entry points of the group `lwmfw` sorted by distribution and name, then
plug-in files in the order given. Nothing that is found acts before a recipe names it.
"""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import get_args

import pluggy
from pydantic import TypeAdapter, ValidationError

from lwmfw import hookspecs
from lwmfw.components import KINDS, Component, DataChoice, Provider
from lwmfw.errors import FOREIGN, UserError, describe, did_you_mean, quoted, shown
from lwmfw.recipe.tables import Name

GROUP = "lwmfw"
MAX_BYTES = 16 << 20
"""Of a plug-in file."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_OF_THE_TABLE = ("use", "as")
"""Keys of a component's table that are not its options."""


@dataclass
class Catalogue:
    """Components by kind and name, and the providers that could not be loaded.

    Attributes:
        components: every record, in discovery order, its provider filled in.
        failures: one sentence per provider that could not be imported, quoted when a name cannot be found.
        files: the plug-in files, with their digests.
    """

    components: list[Component] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    files: dict[Path, Provider] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Component]:
        """The components of one kind, sorted by name."""
        return sorted((c for c in self.components if c.kind == kind), key=lambda c: c.name)

    def find(self, kind: str, use: str) -> Component:
        """The component that `use = "name"` or `use = "dist/name"` means.

        Raises:
            UserError: no such component, or two providers have one of that name.
        """
        provider, _, name = use.rpartition("/")
        known = self.of_kind(kind)
        found = [c for c in known if c.name == name and provider in ("", c.provider.name)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = " or ".join(f"'{c.provider.name}/{c.name}'" for c in found)
            raise UserError(f"{kind} '{use}' is provided by {_names(found)}; write use = {choices}")
        names = sorted({c.name for c in known})
        elsewhere = next((c for c in self.components if c.name == name and c.kind != kind), None)
        hint = did_you_mean(use, [f"{c.provider.name}/{c.name}" for c in known] if provider else names)
        if elsewhere is not None and name not in names:
            hint = f"; '{name}' is {elsewhere.article()}, it belongs into {elsewhere.heading()}"
        notes = "".join(f"; note: {failure}" for failure in self.failures)
        raise UserError(f"no {kind} named '{shown(use)}'{hint or '; choose one'} (known: {', '.join(names)}){notes}")


def discover(files: Sequence[Path | str] = (), *, installed: bool = True) -> Catalogue:
    """Build a catalogue from the installed plug-ins and from plug-in files.

    Args:
        files: plug-in files; an entry may end in "#sha256:<64 hex digits>", which is then verified.
        installed: whether to load entry points.

    Raises:
        UserError: a plug-in file that is missing, cannot be imported or registers nothing.
    """
    catalogue = Catalogue()
    if installed:
        for point in installed_plugins():
            try:
                add_installed(catalogue, point)
            except FOREIGN as error:  # one broken package must not stop recipes that do not name it
                catalogue.failures.append(f"{distribution(point)} failed to load: {describe(error)}")
    for entry in files:
        add_file(catalogue, str(entry))
    return catalogue


def installed_plugins() -> list[EntryPoint]:
    """The entry points of the group, in the order of discovery."""
    return sorted(entry_points(group=GROUP), key=_discovery_order)


def add_module(catalogue: Catalogue, module: ModuleType, provider: Provider) -> None:
    """Collect the records a module registers, each stamped with its provider.

    Raises:
        UserError: the module marks a hook that does not exist, registers nothing, or yields what is no record.
    """
    manager = pluggy.PluginManager("lwmfw")
    manager.add_hookspecs(hookspecs)
    # only functions are asked, as pluggy does: any other object may answer whatever it likes
    functions = {name: value for name, value in vars(module).items() if inspect.isroutine(value)}
    marked = [name for name, value in functions.items() if getattr(value, "lwmfw_impl", None) is not None]
    for name in marked:
        if name != "register_components":
            raise UserError(
                f"{provider}: {name} is marked @hookimpl, but a module has only the hook register_components"
                f"{did_you_mean(name, ['register_components'])}"
            )
    if not marked:
        raise UserError(f"{provider}: no hook register_components; define it with @hookimpl and yield the records")
    manager.register(module)
    (records,) = manager.hook.register_components() or [()]
    if not isinstance(records, Iterable):
        raise UserError(f"{provider}: register_components returned {quoted(records)}; yield the records")
    found: list[Component] = []
    for record in records:
        fault = record_fault(record, found)
        if fault:
            raise UserError(f"{provider}: {fault}")
        found.append(record)
    if not found:
        raise UserError(f"{provider}: register_components yields no record; yield one for each component")
    catalogue.components += [replace(record, provider=provider) for record in found]


def record_fault(record: object, before: Sequence[Component] = ()) -> str:
    """What is wrong with a record, in words; empty: nothing.

    Args:
        record: what a module yielded.
        before: the records it yielded before.
    """
    if not isinstance(record, KINDS):
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        return f"register_components yielded {quoted(record)}; yield one of {kinds}"
    try:
        _NAME.validate_python(record.name, strict=True)
    except ValidationError as error:
        (what,) = (detail["msg"].lower() for detail in error.errors(include_url=False))
        return (
            f"{record.article()} is named {quoted(record.name)}, but a name {what.removeprefix('string ')}; rename it"
        )
    if any((record.kind, record.name) == (other.kind, other.name) for other in before):
        return f"registers two of kind {record.kind} named '{record.name}'; rename one"
    if not callable(record.factory):
        return (
            f"the factory of '{record.name}' is {quoted(record.factory)}, which cannot be called; give the class whose "
            "constructor takes the options"
        )
    base = record.required_options
    if not (isinstance(record.options, type) and issubclass(record.options, base)):
        return f"the options of '{record.name}' are no subclass of lwmfw.{base.__name__}; derive them from it"
    deeper = [name for name, field in record.options.model_fields.items() if _hides_data(field.annotation)]
    if deeper:
        return f"option '{deeper[0]}' of '{record.name}' has a DataChoice inside another type; let it be one itself"
    taken = [
        key for name, field in record.options.model_fields.items() if (key := field.alias or name) in _OF_THE_TABLE
    ]
    if taken:
        return f"the options of '{record.name}' have a '{taken[0]}', which every component's table has; rename it"
    return ""


def _hides_data(annotation: object) -> bool:
    """Whether a type has a DataChoice in it and is none: recipes are checked for options that are."""
    return any(inner is DataChoice or _hides_data(inner) for inner in get_args(annotation))


def add_installed(catalogue: Catalogue, point: EntryPoint) -> None:
    """Collect the records of an installed plug-in; raises whatever its module raises."""
    add_module(catalogue, point.load(), distribution(point))


class OtherFile(UserError):  # noqa: N818
    """A plug-in file that has another digest than a recipe says."""


def add_file(catalogue: Catalogue, entry: str) -> None:
    """Collect the records of a plug-in file.

    Raises:
        UserError: it is missing, too large, another than its digest says, cannot be imported, or registers nothing.
    """
    text, _, digest = entry.partition("#sha256:")
    try:
        path = Path(text).resolve()
        found = path.suffix == ".py" and path.is_file()
    except (OSError, RuntimeError, ValueError):
        path, found = Path(text), False
    label = shown(_shown(path), 500)
    if not found:
        raise UserError(f"{label}: no such plug-in file; plugins lists Python files, relative to the recipe")
    if any(path.name == other.name and path != other for other in catalogue.files):
        raise UserError(f"{label}: two plug-in files are named {path.name}; rename one")
    if path in catalogue.files:
        return
    content = _content(path, label)
    provider = Provider(path.name, path=label, sha256=hashlib.sha256(content).hexdigest())
    if digest and digest != provider.sha256:
        raise OtherFile(f"{label}: sha256 is {provider.sha256}, the recipe says {digest}; restore the file")
    try:
        add_module(catalogue, load_file(path), provider)
    except UserError:
        raise
    except FOREIGN as error:  # whatever it raises, the person who wrote the recipe has to hear of it
        raise UserError(f"{label}: cannot be imported: {describe(error)}") from error
    catalogue.files[path] = provider


def _content(path: Path, label: str) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{label}: cannot be read: {error.strerror}; have it made readable") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{label}: larger than {MAX_BYTES >> 20} MiB; a plug-in file is a Python module")
    return content


def load_file(path: Path) -> ModuleType:
    """Import a Python file under a private module name, without touching sys.path."""
    name = f"lwmfw_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "its name ends in .py"  # noqa: S101
    assert spec.loader is not None, "likewise"  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up in the module of a class
    spec.loader.exec_module(module)
    return module


def _discovery_order(point: EntryPoint) -> tuple[bool, str, str]:
    name = point.dist.name if point.dist else ""
    return name != "lwmfw", name, point.name


def distribution(point: EntryPoint) -> Provider:
    """Where the components of an entry point come from."""
    return Provider(point.dist.name, point.dist.version) if point.dist else Provider(point.value)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _names(components: Iterable[Component]) -> str:
    return " and ".join(str(c.provider) for c in components)
