"""lwmfw: a plug-in framework for class-incremental image classification.

What a plug-in author needs is importable from here; `dir(lwmfw)` shows all of it. Importing this package does not
import torch: the names that __init__.pyi lists are loaded when they are first asked for.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def _homes() -> dict[str, str]:
    """Public name -> module it comes from."""
    import ast

    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (statement for statement in tree.body if isinstance(statement, ast.ImportFrom))
    return {str(name.asname): str(statement.module) for statement in imports for name in statement.names}


def _version() -> str:
    from importlib import metadata  # takes longer than all else that a verb which only talks imports

    return metadata.version("lwmfw")


def __dir__() -> list[str]:
    return [*sorted(_homes()), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__all__":
        value: Any = __dir__()
    elif name == "__version__":
        value = _version()
    elif not name.startswith("__") and name in _homes():
        value = getattr(import_module(_homes()[name]), name)
    else:
        raise AttributeError(f"module 'lwmfw' has no attribute '{name}'")
    globals()[name] = value
    return value
