"""Whose fault an exception is that came out of no hook and no method: a network's, mostly."""

from __future__ import annotations

from lwmfw.assembly.calls import Attached, place_in
from lwmfw.assembly.parts import Assembly
from lwmfw.errors import RunFailed, WrongAnswer, describe, one_line

_LONE_IMAGE = "Expected more than 1 value per channel when training"
"""What torch's BatchNorm says of a batch that is a single value per channel."""


def blamed(assembly: Assembly, error: BaseException) -> RunFailed | None:
    """The failure to report, in the name of the component to blame; None: it is none's.

    A network of a stranger is blamed for what it answers and raises. One of ours that raises below was given what it
    does not take, so a stranger in the traceback is asked first.
    """
    raised = error.__cause__ or error if isinstance(error, WrongAnswer) else error
    if one_line(raised).startswith(_LONE_IMAGE):
        return RunFailed(
            "training.batch_size: a batch of one image, whose maps are of 1x1, leaves BatchNorm nothing to "
            f"compare; the run stopped {assembly.position}; change training.batch_size"
        )
    network = _network(assembly, error) if isinstance(error, WrongAnswer) else None
    if network is not None and (raised is error or not _ours(network)):
        return _network_failure(network, error, raised)
    for part in assembly.components.values():
        place = place_in(error, part.provider, part.instance)
        if place and not _ours(part):
            return part.failure(f"{place}: {part.name} raised {describe(raised)}")
    if network is not None:
        return _network_failure(network, error, raised)
    return RunFailed(f"{error}; the run stopped {assembly.position}") if isinstance(error, WrongAnswer) else None


def _network(assembly: Assembly, error: WrongAnswer) -> Attached | None:
    """The component that a network's answer is of: the one of its kind, else one whose file the network comes from."""
    parts = list(assembly.components.values())
    named = [part for part in parts if part.record.kind == error.kind]
    akin = [part for part in parts if error.part is not None and _root(part.instance) == _root(error.part)]
    return next(iter([*named, *akin]), None)


def _root(instance: object) -> str:
    return type(instance).__module__.partition(".")[0]


def _ours(part: Attached) -> bool:
    return part.record.provider.name == "lwmfw"


def _network_failure(network: Attached, error: BaseException, raised: BaseException) -> RunFailed:
    place = place_in(raised, network.provider, network.instance)
    if raised is not error and place:
        return network.failure(f"{place}: {network.name} raised {describe(raised)}")
    return network.failure(f"{network.provider}: {network.name}: {error}")
