"""The contract of each kind as checks that raise AssertionError and say which sentence of it is broken."""

from __future__ import annotations

import copy
import inspect
import pickle
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lwmfw.assembly.answers import HOOKS, METHODS
from lwmfw.assembly.assemble import assemble
from lwmfw.components import Component, Options, trait
from lwmfw.data.decoding import decode_images
from lwmfw.data.images import ImageFiles, Images
from lwmfw.data.workers import Carried
from lwmfw.engine.prepare import prepare
from lwmfw.engine.run import Run
from lwmfw.memory.exemplars import keep_exemplars
from lwmfw.memory.selection import Selection
from lwmfw.model.growing import evaluating, frozen_copy
from lwmfw.model.outputs import Features
from lwmfw.recipe.budget import parse_budget
from lwmfw.recipe.load import load_recipe
from lwmfw.testing.tiny import CLASSES, outputs_pair, penalty_terms, provided, tiny_recipe, tiny_run


def _total(terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return sum(terms.values(), start=torch.zeros((), dtype=torch.float64))


def check_penalty(
    factory: Callable[[Any], Any],
    options: Options | None = None,
    *,
    stationary: bool = True,
    reaches_model: bool = True,
) -> None:
    """Hold a penalty against the contract.

    Args:
        factory: the penalty's class.
        options: its options; by default `Options()`.
        stationary: whether its gradient is zero where new and old models are equal, in evaluation mode.
        reaches_model: whether its gradient reaches the new model at all; if not, it may have no term.
    """

    def build() -> Any:
        return factory(options or Options())

    pair = outputs_pair()
    versions = [pair.new.logits._version, pair.old.logits._version, pair.batch.images._version]
    state = torch.random.get_rng_state()
    terms = penalty_terms(build(), pair)
    assert terms or not reaches_model, "compute_penalty returns a term for an ordinary batch"
    assert torch.equal(state, torch.random.get_rng_state()), "the global random generator is left alone; take rng"
    assert versions == [pair.new.logits._version, pair.old.logits._version, pair.batch.images._version], (
        "inputs are not changed in place"
    )
    for name, value in terms.items():
        assert isinstance(name, str), "terms are named by strings"
        assert value.shape == (), f"term {name} is a scalar"
        assert value.isfinite(), f"term {name} is finite"
    assert list(terms) == list(penalty_terms(build(), pair)), "names of terms are stable"

    total = _total(terms)
    if reaches_model:
        grads = torch.autograd.grad(total, list(pair.model.parameters()), allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in grads), "the gradient reaches the new model"
        assert all(g is None or g.isfinite().all() for g in grads), "the gradient is finite"
    assert not any(p.requires_grad or p.grad is not None for p in pair.old_model.parameters()), (
        "the old model stays frozen"
    )
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = _total(penalty_terms(build(), pair.subset(order)))
    assert (shuffled - total).abs() <= 1e-9 * total.abs().clamp(min=1.0), "the order of a batch does not matter"
    for value in penalty_terms(build(), pair.subset(slice(0, 1))).values():
        assert value.isfinite(), "a batch of one image works"
    if stationary and reaches_model:
        same = outputs_pair(equal=True)
        loss = _total(penalty_terms(build(), same))
        grads = torch.autograd.grad(loss, list(same.model.parameters()), allow_unused=True)
        largest = max((float(g.abs().max()) for g in grads if g is not None), default=0.0)
        assert largest < 1e-5, f"equal models are stationary (largest gradient {largest:.1e})"


def check_backbone(component: Any, *, channels: int = 3, size: int = 32) -> None:
    """Hold a backbone's object against the contract: it offers what it says, copies and reloads.

    Args:
        component: the backbone's object.
        channels: of the images that it is shown.
        size: their height and width in pixels.
    """
    offers = trait(component, "offers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _answered("backbone", "build", component.build(channels)).eval()
        images = torch.randn(2, channels, size, size)
    with torch.no_grad():
        out = network(images)
        assert isinstance(out, Features), "forward returns Features"
        assert out.features.ndim == 2, "features are (B, D)"
        for name in ("maps", "raw_maps"):
            assert bool(getattr(out, name)) == (name in offers), f"{name} are there if they are offered"
        for raw, after in zip(out.raw_maps, out.maps, strict=False):
            same = torch.equal(raw, after) or torch.equal(raw.relu(), after)
            assert same, "maps are raw_maps, or raw_maps after their ReLU"
        assert (out.pooled is not None) == ("pooled" in offers), "pooled is there if it is offered"
        if out.pooled is not None:
            _equal(out.pooled.mean((2, 3)), out.features, "features are the spatial mean of pooled")
        assert torch.equal(copy.deepcopy(network)(images).features, out.features), "a copy computes the same"
        other = component.build(channels).eval()
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(images).features, out.features), "the state dict holds everything"
        among = torch.cat([images[:1], images.flip(-1) + 1])
        _equal(network(among).features[:1], out.features[:1], "features hang on their image alone in evaluation mode")


def check_classifier(component: Any) -> None:
    """Hold a classifier's object against the contract: it grows, and old rows keep their scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = _answered("classifier", "build", component.build(6))
        features = torch.randn(5, 6)
        head.grow(3)
        before = head(features)
        head.grow(2)
        after = head(features)
    assert before.shape == (5, 3), "logits are (B, classes)"
    assert after.shape == (5, 5), "grow adds classes"
    _equal(after[:, :3], before, "old classes keep their logits when new ones come")
    assert all(p.requires_grad for p in head.parameters()), "rows are trainable after growing"
    offers = trait(component, "offers")
    if "similarities" in offers:
        assert head.similarities(features).shape == (5, 5), "similarities are (B, classes)"
    if "rows" in offers:
        _equal(features @ head.weight.T + head.bias, after, "logits are W f + b, with rows W and b")
    if "heads" in offers:
        assert len(head.heads) == 2, "there is a head for each time that it has grown"
        assert all(hasattr(each, "weight") and hasattr(each, "bias") for each in head.heads), (
            "heads have weight and bias"
        )
    if "resize" in offers:
        head.resize(8)
        head.grow(1)
        assert head(torch.randn(5, 8)).shape == (5, 6), "a resized head takes as many features"


def check_objective(component: Any) -> None:
    """Hold an objective's object against the contract: a batch mean, least for right answers."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> Any:
        return _answered("objective", "loss", component.loss(logits, labels), logits, labels)

    labels = torch.tensor([0, 1, 2])
    right, wrong = 8.0 * torch.eye(3), 8.0 * torch.eye(3).roll(1, 0)
    assert loss(right, labels) < loss(wrong, labels), "right answers cost less"
    twice = loss(torch.cat([wrong, wrong]), torch.cat([labels, labels]))
    _equal(twice, loss(wrong, labels), "the loss is a mean over the batch")
    if trait(component, "none_of_these"):
        assert loss(-right, labels - 3) < loss(right, labels - 3), "labels below 0 are no class"


def check_data(component: Any) -> None:
    """Hold a data set's object against the contract: images in memory or in files, every class in both parts."""
    data = _answered("data", "load", component.load())
    classes = range(len(data.class_names))
    assert trait(component, "class_count") in (None, len(classes)), "class_count is the number of classes"
    assert trait(component, "class_names") in (None, data.class_names), "class_names are the names of classes"
    for name, order in trait(component, "orders").items():
        assert len(set(order)) == len(order), f"the order {name} has a class at most once"
        assert set(order) <= set(classes), f"the order {name} is of the set's classes"
    for part in (data.train, data.test):
        if isinstance(part, ImageFiles):
            pixels = decode_images(part.select(torch.arange(min(4, len(part))))).pixels
            assert pixels.ndim == 4, "files hold images that can be decoded"
        assert set(part.labels.tolist()) == set(classes), "every class has images"


def _answered(kind: str, method: str, answer: Any, *arguments: Any) -> Any:
    """An answer of a kind's method, held against the table that runs hold it against."""
    fault = METHODS[f"{kind}.{method}"](answer, *arguments)
    assert not fault, f"{method} {fault}"
    return answer


def _equal(found: torch.Tensor, wanted: torch.Tensor, sentence: str) -> None:
    torch.testing.assert_close(found, wanted, msg=lambda difference: f"{sentence}: {difference}")


def _prepared(tables: Mapping[str, Any]) -> Run:
    """A run of the tiny recipe before its first step, which does not have the component and can be left nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(assemble(load_recipe(tiny_recipe(tables, Path(folder)))), "cpu")
    run.pause = lambda name: None  # type: ignore[method-assign]
    return run


def _asked(question: Callable[..., Any], **offered: Any) -> Any:
    """What a hook returns, given the arguments it wants and an rng of the same seed every time."""
    offered |= {"rng": torch.Generator().manual_seed(1), "name": "examined"}
    return question(**{name: offered[name] for name in inspect.signature(question).parameters})


def _answers(hook: str, answer: Any, offered: Mapping[str, Any]) -> None:
    """Hold an answer against the table that runs hold it against."""
    fault = HOOKS[hook](answer, offered)
    assert not fault, f"{hook} {fault}"


def check_selector(component: Any) -> None:
    """Hold a selector's object against the contract: it keeps the quota of each class, and is a function of rng."""
    run = _prepared({})
    run.model.grow(CLASSES)
    step, candidates = run.steps[-1], run.data.train
    before = _weights(run)
    for count in (1, 4, 16):
        quota = dict.fromkeys(step.seen_classes, count)
        offered = {"run": run, "step": step, "model": run.model, "candidates": candidates, "quota": quota}
        chosen, again = (_asked(component.select_memory, **offered) for _ in range(2))
        _answers("select_memory", chosen, offered)
        for label in quota:
            assert len(chosen.indices[label]) == count, "a quota of at most what there is is filled"
            assert torch.equal(chosen.indices[label], again.indices[label]), "the same rng, the same choice"
    _left_alone(run, before)


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def _left_alone(run: Run, before: Mapping[str, torch.Tensor]) -> None:
    """The model has the weights that it had, and the statistics of BatchNorm, which learns in training mode."""
    state = run.model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, state[name])]
    assert not changed, f"the model is left as it was ({changed[0]} is not); use lwmfw.evaluating"
    assert run.model.training, "the model is left in training mode"


def check_refiner(component: Any) -> None:
    """Hold a refiner's object against the contract: it changes pixels of what was selected and nothing else."""
    memory = {"budget": "3 per class", "select": {"use": "random"}}
    run = _prepared({"memory": memory, "objective": {"use": "cross_entropy", "over": "seen"}})
    run.model.grow(CLASSES)
    step, candidates = run.steps[-1], run.data.train
    selection = Selection({c: (candidates.labels == c).nonzero().flatten()[[5, 2, 9]] for c in step.seen_classes})
    quota = dict.fromkeys(step.seen_classes, 3)
    weights = _weights(run)
    assert isinstance(candidates, Images), "synthetic images are in memory"
    before = candidates.pixels.clone()
    offered = {"run": run, "step": step, "model": run.model, "candidates": candidates, "quota": quota}

    def refined() -> Selection:
        underway = _asked(component.select_memory, **offered)
        next(underway)
        try:
            underway.send(selection)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
        raise AssertionError("a refiner yields once, for the selection")

    found, again = refined(), refined()
    _answers("select_memory", found, offered)
    assert all(torch.equal(found.indices[c], selection.indices[c]) for c in quota), "a refiner selects nothing"
    assert found.pixels.keys() == again.pixels.keys(), "the same rng, the same classes"
    assert all(torch.equal(found.pixels[c], again.pixels[c]) for c in found.pixels), "the same rng, the same pixels"
    assert torch.equal(candidates.pixels, before), "candidates are not changed in place"
    _left_alone(run, weights)


def check_rate(component: Any) -> None:
    """Hold a rate's object against the contract: a number for every class, in all no more than there may be.

    One that grows may keep more.
    """
    run = _prepared({})
    cost = 100.0
    for budget in map(parse_budget, ("40 exemplars", "3 per class", "2 kB", "all")):
        for step in run.steps:
            classes = step.seen_classes
            offered = {"run": run, "step": step, "budget": budget, "classes": classes, "cost": cost}
            quota, again = (_asked(component.allocate_memory, **offered) for _ in range(2))
            _answers("allocate_memory", quota, offered)
            assert quota == again, "the same rng, the same quotas"
            total = budget.total(len(classes), cost)
            bounded = total is not None and not trait(component, "grows")
            assert not bounded or sum(quota.values()) <= (total or 0), "quotas are within the budget, unless it grows"


def check_readout(component: Any) -> None:
    """Hold a read-out's object against the contract: a score for each seen class, and nothing else is changed."""
    memory = {"budget": "3 per class", "select": {"use": "random"}}
    run = _prepared({"memory": memory, "objective": {"use": "cross_entropy", "over": "seen"}})
    old = None
    if hasattr(component, "before_run"):
        assert _asked(component.before_run, run=run) is None, "a moment returns nothing"
    for step in run.steps:
        run.model.grow(len(step.new_classes))
        data = run.data.train.of_classes(step.seen_classes)
        weights = {name: value.clone() for name, value in run.model.state_dict().items()}
        if hasattr(component, "after_training"):
            offered = {"run": run, "step": step, "model": run.model, "old": old, "data": data}
            assert _asked(component.after_training, **offered) is None, "a moment returns nothing"
        keep_exemplars(run, step, data)
        with evaluating(run.model):
            features = run.features(run.data.test.of_classes(step.seen_classes))
            found, again = component.scores(features), component.scores(features)
        fault = METHODS["readout.scores"](found, features)
        assert not fault, f"scores {fault}"
        assert found.shape[1] == len(step.seen_classes), "there is a score for each seen class"
        assert torch.equal(found, again), "the same features, the same scores"
        state = run.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in weights.items()), "the model is left as it was"
        old = frozen_copy(run.model)
    if hasattr(component, "state"):
        kept = component.state()
        fault = METHODS["state"](kept)
        assert not fault, f"state {fault}"
        other = copy.deepcopy(component)
        other.restore(kept)
        assert torch.equal(other.scores(features), found), "a state that is restored scores the same"


def check_codec(component: Any) -> None:
    """Hold a codec's object against the contract: an image for an image, the same bytes each time, in any process.

    Warns of one that cannot be pickled: it works, but not in worker processes.
    """
    elsewhere = pickle.loads(pickle.dumps(Carried(component))).content  # noqa: S301 - what a worker gets
    if elsewhere is None:
        warnings.warn(f"{type(component).__name__} cannot be pickled; it holds up the main process", stacklevel=2)
    rng = torch.Generator().manual_seed(0)
    for shape in ((1, 28, 28), (3, 32, 32), (3, 5, 17)):
        pixels = torch.randint(0, 256, (4, *shape), dtype=torch.uint8, generator=rng)
        before, encoded = pixels.clone(), _answered("codec", "encode", component.encode(pixels), pixels)
        assert torch.equal(pixels, before), "images are not changed in place"
        assert component.encode(pixels) == encoded, "the same image, the same bytes"
        alone = [stored for image in pixels for stored in component.encode(image[None])]
        assert alone == encoded, "an image's bytes do not depend on the others"
        decoded = _answered("codec", "decode", component.decode(encoded, shape), encoded, shape)
        if elsewhere is not None:
            assert elsewhere.encode(pixels) == encoded, "a pickled copy encodes the same"
            assert torch.equal(elsewhere.decode(encoded[:1], shape), decoded[:1]), "a pickled copy decodes the same"
        assert component.encode(pixels[:0]) == [], "no images are no bytes"
        assert component.decode([], shape).shape == (0, *shape), "no bytes are no images"
        _answered("codec", "shared_bytes", component.shared_bytes(shape), shape)


def check_phase(component: Any) -> None:
    """Hold a phase's object against the contract: it plans the same phases each time, named apart, or none."""
    memory = {"budget": "2 per class", "select": {"use": "random"}}
    run = _prepared({"memory": memory, "objective": {"use": "cross_entropy", "over": "seen"}})
    names = []
    for step in run.steps:
        planned, again = (_asked(component.plan_phases, step=step, main=run.phases(step)[0]) for _ in range(2))
        _answers("plan_phases", planned, {})
        assert planned == again, "a plan does not change"
        names.append([phase.name for phase in planned or ()])
        assert len({"main", *names[-1]}) == 1 + len(names[-1]), "phases of a step have names of their own"
    assert any(names), "some step has a further phase"


def check_observer(record: Component, folder: Path, options: Options | None = None) -> None:
    """Hold an observer against the contract: a run with it has the numbers of a run without, and its own."""
    record = provided(record)
    plain, watched = folder / "plain", folder / "watched"
    plain.mkdir()
    watched.mkdir()
    without = tiny_run({}, plain)
    chosen = (options or record.options()).model_dump(exclude_none=True)
    table = {"use": f"{record.provider.name}/{record.name}", **chosen}
    with_it = tiny_run({"observers": [table]}, watched, components=[record])
    for results in (without.results, with_it.results):
        for step in results.steps:
            step.train_seconds, step.part_seconds = 0.0, {}
            step.extra.pop(record.name, None)
        results.providers.pop(record.name, None)
    assert with_it.results == without.results, "an observer changes nothing"


def check_options(record: Component) -> None:
    """Hold the options of any component against the contract: described, and valid by default."""
    for name, field in record.options.model_fields.items():
        assert field.description, f"option {name} of {record.name} is described"
        assert not field.is_required() or record.kind == "data", f"option {name} of {record.name} has a default"
    assert record.summary, f"{record.name} says in one line what it is"
