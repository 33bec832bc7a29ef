"""lwmfw: a plug-in framework for class-incremental image classification.

What a plug-in author needs is importable from here; `dir(lwmfw)` shows all of it. Importing this package does not
import torch: the names that __init__.pyi lists are loaded when they are first asked for.
"""

import ast
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

__version__ = metadata.version("lwmfw")

_HOMES = {
    name.asname: statement.module
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for name in statement.names
}
"""Public name -> module it comes from."""

__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604 - they are strings


def __dir__() -> list[str]:
    return [*__all__]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lwmfw' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
