"""Two runs that learned apart on one backbone, made one: their sums are added."""

from __future__ import annotations

from typing import Any

from lwmfw.engine.borrowed import given_back
from lwmfw.engine.evaluate import evaluate
from lwmfw.engine.opened import OpenedRun
from lwmfw.engine.origin import continued, finished_steps, only_readouts, place, same_source, sources_of
from lwmfw.engine.run import Run
from lwmfw.errors import UserError
from lwmfw.recipe.scenario import Step
from lwmfw.record.identity import first_difference
from lwmfw.using.keep import recipe_from
from lwmfw.using.sums import check_exact, exact_parts

Sources = list[dict[str, Any]]


@given_back()
def merged(one: OpenedRun, two: OpenedRun, base: OpenedRun | None = None) -> Run:
    """A run that knows the classes of both, in the order of the first.

    What both have learned from the run they go on from counts once.

    Args:
        one: a run from sums.
        two: another, of the same backbone and read-outs.
        base: the run that both go on from; None: it is looked for where they say.

    Raises:
        UserError: they are not alike, or the run that both go on from is not there.
    """
    _check_alike(one, two)
    shared = _shared(sources_of(one), sources_of(two))
    base = _base(one, shared, base) if shared else None
    run, names = one.as_left(recipe=recipe_from(one, "merge")), one.class_names
    new = [name for name in two.class_names if name not in names]
    every = [*names, *new]
    sources = [*sources_of(one), *sources_of(two)[len(shared) :]]
    run.results = continued(only_readouts(run.results, list(exact_parts(run))), new=new, sources=sources, data=None)
    run.steps = finished_steps(run.results, [Step(1, range(len(new)), range(len(new)), 1)])
    run.model.grow(len(new))
    for name, part in exact_parts(run).items():
        part.method("add")(two.checkpoint().components[name], [every.index(c) for c in two.class_names], 1)
        if base:
            part.method("add")(base.checkpoint().components[name], [every.index(c) for c in base.class_names], -1)
    run.results.steps.append(evaluate(run, run.steps[-1], train_seconds=0.0, epochs=0))
    return run


def _check_alike(one: OpenedRun, two: OpenedRun) -> None:
    for opened in (one, two):
        check_exact(opened)
        if opened.recipe.recipe.memory:
            raise UserError(f"{opened.path}: keeps exemplars, which are not merged; name runs without [memory]")
    ours, theirs = ({t["as"]: t for t, exact in each.assembly.readouts() if exact} for each in (one, two))
    key = first_difference(ours, theirs)
    if key:
        raise UserError(
            f"{two.path}: its read-outs are others than those of {one.path} ({key} differs); merge like runs"
        )
    kept, other = (next(iter(each.results.steps[-1].readouts.values())) for each in (one, two))
    if kept["backbone"] != other["backbone"]:
        raise UserError(f"{two.path}: has another backbone than {one.path}; merge runs that go on from one")
    here, there = (each.checkpoint().facts["arithmetic"] for each in (one, two))
    if here != there:
        raise UserError(f"{two.path}: was computed in {there}, and {one.path} in {here}; merge runs of one arithmetic")


def _shared(one: Sources, two: Sources) -> Sources:
    """What both have learned from before they parted.

    Raises:
        UserError: they have learned from the same images afterwards too, or the second from nothing else.
    """
    count = 0
    while count < min(len(one), len(two)) and same_source(one[count], two[count]):
        count += 1
    if count == len(two):
        raise UserError("the second run has learned from nothing that the first has not; there is nothing to merge")
    for source in two[count:]:
        if any(same_source(source, other) for other in one[count:]):
            raise UserError(
                f"both runs have learned from {place(source) or 'the same images'} after they parted, which would "
                "count twice; retract it from one of them first"
            )
    return one[:count]


def _base(one: OpenedRun, shared: Sources, named: OpenedRun | None) -> OpenedRun:
    """The run that has learned from what both have: the one that is named, or looked for where one goes on from."""
    if named is not None:
        if not _same(sources_of(named), shared):
            raise UserError(f"--base: {named.path} is not the run that both go on from; name that one")
        return named
    current = one
    while not _same(sources_of(current), shared):
        origin = current.recipe.recipe.origin
        if origin is None or origin.made_by or not OpenedRun(origin.run).finished:
            raise UserError(f"{one.path}: the run that both go on from is not there; name it with --base")
        current = OpenedRun(origin.run)
    return current


def _same(one: Sources, two: Sources) -> bool:
    return len(one) == len(two) and all(map(same_source, one, two))
