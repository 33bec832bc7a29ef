"""Libraries that an extra of lwmfw brings."""

from __future__ import annotations

from importlib.util import find_spec

from lwmfw import UserError


def require(extra: str, *modules: str) -> None:
    """See that the modules of an extra are there, or those called like it.

    Raises:
        UserError: one is not; a folder of its name in the current one is no module.
    """
    for module in modules or (extra,):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise UserError(f'{module} is not installed; pip install "lwmfw[{extra}]"')
