"""The components that lwmfw ships, each in a file of the same form as a stranger's plug-in.

A folder is a kind. A file or folder in it registers components unless its name begins with an underscore: those are
helpers. A file imports torch where it computes rather than at its head, so that `check`, `show` and `plugins`, which
only need names and options, answer at once. What has to subclass `nn.Module` stands in a helper beside its component.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from lwmfw import Component, hookimpl


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of all files."""
    for kind in iter_modules(__path__, f"{__name__}."):
        if kind.ispkg:
            for file in iter_modules(import_module(kind.name).__path__, f"{kind.name}."):
                if not file.name.rpartition(".")[2].startswith("_"):
                    yield from import_module(file.name).register_components()
