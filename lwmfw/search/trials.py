"""The continual hyper-parameter search of De Lange et al. (2021) as FACIL has it (Masana et al. 2022).

for each step that is searched, from the model that was accepted for the step before:
    plasticity: the step is learned by fine-tuning, the recipe without its penalties, at every candidate rate
                A* = the best accuracy on the new classes ; lr = the largest rate that comes within a point of it
    stability:  the step is learned by the recipe at lr, its trade-offs high at first, then smaller and smaller,
                until the accuracy on the new classes is at least keep * A*: that trial is accepted
Step 1 has nothing to forget: the recipe is trained at every rate, and the chosen trial is accepted.

Accuracies are those of held-out training images; the test set is not read. A trial is a run of the one loop: it starts
from a checkpoint in memory and ends after its step.
"""

from __future__ import annotations

import copy
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lwmfw import loop
from lwmfw.assembly.assemble import assemble
from lwmfw.data.workers import kept_workers
from lwmfw.engine.borrowed import given_back
from lwmfw.engine.build import DeviceName
from lwmfw.engine.kept import snapshot
from lwmfw.engine.prepare import environment, prepare
from lwmfw.engine.telling import told_in_words
from lwmfw.errors import Interrupted, NotFinite
from lwmfw.recipe.load import Resolved, override
from lwmfw.recipe.scenario import Step
from lwmfw.record.checkpoint import Checkpoint
from lwmfw.record.directory import RunDirectory, open_directory, unused
from lwmfw.search.decide import Found, Search, Stage, Trial, ladder, most_trials, recommended, rungs_of, settle


@kept_workers()
@given_back()
def search_recipe(
    resolved: Resolved, search: Search, out: Path | None, device: DeviceName, tell: Callable[[str], None]
) -> list[Found]:
    """Search the steps of a recipe and write search.jsonl and found.toml.

    Args:
        resolved: the recipe.
        search: what is searched, and how.
        out: a new directory; by default `runs/<recipe>-search/<time>-s<seed>`.
        device: auto takes a GPU if there is one.
        tell: is given a line about every trial.

    Raises:
        UserError: a value that the recipe refuses, a wrong place, or missing data.
        RunFailed: an error inside a plug-in, or no trial with a finite loss.
        RunBusy: the directory belongs to another process.
        Interrupted: Ctrl-C.
    """
    # whatever can be refused is refused before a directory is made
    rungs = ladder(search)
    for settings in [*rungs, *({"training.lr": rate} for rate in search.rates)]:
        override(resolved, settings)
    bench = override(resolved, {"observers": [], "evaluation.validation": search.validation})
    assembly = assemble(bench)
    prepared = prepare(assembly, device)
    steps, facts = prepared.steps[: search.steps or None], environment(prepared)
    del prepared  # every trial has its own model and images
    path = out or unused(f"{resolved.recipe.name}-search", resolved.recipe.seed)
    directory, _ = open_directory(resolved, path, "never")
    trials = _Trials(
        bench, directory, device, tell, most=sum(most_trials(search, rungs_of(step, rungs)) for step in steps)
    )
    found: list[Found] = []
    try:
        with told_in_words(assembly, directory.path):
            tell(_opening(resolved, search, rungs, steps))
            tell(f"recorded in {directory.path}")
            directory.keep_sources(resolved)
            directory.write_environment(facts)
            for step in steps:
                found.append(settle(search, rungs_of(step, rungs), partial(trials.measure, step)))
                trials.origin = found[-1].accepted.after
                trials.most -= most_trials(search, rungs_of(step, rungs)) - found[-1].trials
                tell(found[-1].line(step.total))
            directory.write_recipe("found.toml", override(resolved, recommended(found)), _head(search, found, steps))
            tell(f"run it: lwmfw run {shlex.quote(str(directory.path / 'found.toml'))}")
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"{directory.path}: interrupted; search.jsonl lists the {trials.count} finished trials, but a search "
            "starts anew; choose another --out",
            exit_code=130,
        ) from error
    finally:
        directory.close()
    return found


@dataclass
class _Trials:
    """Makes trials and records them; `origin` is what they go on from, `most` how many there are in all at most."""

    recipe: Resolved
    directory: RunDirectory
    device: DeviceName
    tell: Callable[[str], None]
    most: int
    origin: Checkpoint | None = None
    count: int = 0
    best: dict[int, float] = field(default_factory=dict)

    def measure(self, step: Step, stage: Stage, lr: float, trade_offs: dict[str, float], wanted: float) -> Trial:
        """Train one step as stated, from the origin."""
        trial = Trial(step.index, stage, lr, trade_offs, wanted, None, None)
        best = f"  best so far {self.best[step.index]:.3f}" if step.index in self.best else ""
        self.tell(f"trial {self.count + 1} of {self.most} at most: {trial.heading(stage, step.total)}{best}")
        started = time.perf_counter()
        plain = stage == "plasticity" and step.index > 1
        settings: dict[str, object] = {"training.lr": lr, **trade_offs}
        assembly = assemble(override(self.recipe, settings | ({"penalties": []} if plain else {})))
        with told_in_words(assembly, self.directory.path):
            run = prepare(assembly, self.device)
            run.until = step.index  # the memory is planned for the steps behind it all the same
            # a copy, since components go on with what they are given
            run.origin = copy.deepcopy(self.origin)
            if plain and run.origin:
                run.origin = run.origin.without_extras()
            try:
                result = loop.train(run).steps[-1]
            except NotFinite:
                pass  # a rate too large is an answer, not an error
            else:
                who = next(iter(result.accuracy))
                new, seen = result.accuracy_by_step[who][-1], result.accuracy[who]
                trial = replace(trial, accuracy_new=new, accuracy_seen=seen, after=snapshot(run))
                self.best[step.index] = max(self.best.get(step.index, 0.0), new or 0.0)
        trial = replace(trial, seconds=round(time.perf_counter() - started, 1))
        self.count += 1
        self.directory.log_trial(trial.row())
        self.tell(trial.line(step.total))
        return trial


def _opening(resolved: Resolved, search: Search, rungs: Sequence[dict[str, float]], steps: Sequence[Step]) -> str:
    """What is about to be searched, every key by its full name."""
    high = "".join(f", {key} from {value:g}" for key, value in (rungs[0] if rungs else {}).items())
    down = f" times {search.decay:g} after each trial that falls short, {search.trials} trials at most" if rungs else ""
    return (
        f"search of {resolved.recipe.name}, seed {resolved.recipe.seed}: steps 1 to {len(steps)} of {steps[0].total}, "
        f"on {search.validation:g} of the training images\n"
        f"searched: training.lr of {', '.join(f'{rate:g}' for rate in search.rates)}{high}{down}"
    )


def _head(search: Search, found: Sequence[Found], steps: Sequence[Step]) -> str:
    """The comment that found.toml begins with."""
    lines = [
        f"Found by `lwmfw search` on {search.validation:g} of the training images, in steps 1 to {len(steps)} of "
        f"{steps[0].total}; the trials are in search.jsonl",
        "",
        *(each.line(steps[0].total) for each in found),
    ]
    if len(steps) > 1:
        lines += [
            "",
            "training.first.lr is that of step 1; training.lr and the trade-offs are the smallest of the later steps.",
        ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
