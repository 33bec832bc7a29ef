"""The kit: what its examination refuses, and in which words; and tiny runs."""

import gc
import warnings

import pytest
import torch
from helpers.plugin_files import penalty_file
from pydantic import ValidationError
from torch import nn

from lwmfw import (
    Backbone,
    Classifier,
    Codec,
    Data,
    DataSet,
    ExtraPhase,
    Features,
    Field,
    Images,
    Objective,
    ObjectiveOptions,
    Observer,
    Options,
    Penalty,
    Rate,
    Readout,
    Refiner,
    Selection,
    Selector,
    UserError,
    hookimpl,
)
from lwmfw.components import KINDS
from lwmfw.testing import check, tiny_run


def kind_of(record):
    return record if isinstance(record, str) else record.kind


class Part:
    """A component that does one thing."""

    def __init__(self, options):
        self.options = options


def part(**own):
    """A class of components with some attributes and hooks."""
    return type("Part", (Part,), {"__doc__": Part.__doc__} | own)


def wrapper(function):
    return hookimpl(wrapper=True)(function)


class Rows(nn.Module):
    """A classifier that forgets its rows when it grows."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def grow(self, classes):
        self.weight = nn.Parameter(torch.randn(getattr(self, "rows", 0) + classes, self.features))
        self.rows = len(self.weight)

    def forward(self, features):
        return features @ self.weight.T


class Sum(nn.Module):
    """A backbone whose features are no mean of its map."""

    def forward(self, images):
        return Features(images.sum((2, 3)), [images], [images], images)


class Beside(nn.Module):
    """A backbone whose features hang on the other images of the batch."""

    def forward(self, images):
        found = images.mean((2, 3))
        return Features(found - found.mean(0), [], [], None)


def one_class(self):
    images = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    return DataSet(images, images, ["a", "b"], [0.5], [0.5])


def double_terms(self, new, old):
    return {"term": new.features.sum() - old.features.sum()}


def first(self, candidates, quota):
    return Selection({c: (candidates.labels == c).nonzero().flatten()[: n // 2] for c, n in quota.items()})


def look(self, run, model, candidates, quota):
    for images, _ in run.loader.evaluation_batches(candidates):
        model(images)
    return Selection({c: (candidates.labels == c).nonzero().flatten()[:n] for c, n in quota.items()})


def drop(self):
    selection = yield
    return Selection({c: indices[:1] for c, indices in selection.indices.items()})


def blind(self, model):
    for parameter in model.backbone.parameters():
        parameter.data.zero_()


NONE = {"shared_bytes": lambda self, shape: 0, "decode": lambda self, encoded, shape: None}
BROKEN = [
    (Data("x", part(load=one_class)), "every class has images"),
    (
        Backbone("x", part(build=lambda self, c: Sum(), offers={"maps", "raw_maps", "pooled"})),
        "features are the spatial",
    ),
    (Backbone("x", part(build=lambda self, c: Beside(), offers={})), "features hang on their image alone"),
    (Backbone("x", part(build=lambda self, c: 3)), "build returned int; return an nn.Module"),
    (Classifier("x", part(build=lambda self, n: Rows(n))), "old classes keep their logits when new ones come"),
    (Classifier("x", part(build=lambda self, n: nn.Linear(n, 2))), "without grow"),
    (Objective("x", part(loss=lambda self, logits, labels: logits.sum() - labels.sum())), "right answers cost less"),
    (Objective("x", part(loss=lambda self, logits, labels: 1.0)), "loss returned float; return a scalar tensor"),
    (Penalty("x", part(needs="old", compute_penalty=hookimpl(double_terms))), "equal models are stationary"),
    (Penalty("x", part(needs="odl", after_update=hookimpl(lambda self: None))), "needs 'odl', which nothing can offer"),
    (Penalty("x", part()), "test: Part: a penalty needs a hook; define one with @hookimpl"),
    (Penalty("x", part(need="old", after_update=hookimpl(lambda self: None))), "did you mean 'needs'?"),
    (
        ExtraPhase("x", part(plan_phases=hookimpl(lambda self, main: [main]))),
        "phases of a step have names of their own",
    ),
    (ExtraPhase("x", part(plan_phases=hookimpl(lambda self, main: main))), "plan_phases returned Phase; return a list"),
    (Readout("x", part(scores=lambda self, features: features[:, :1])), "there is a score for each seen class"),
    (Readout("x", part(scores=lambda self, features: features.argmax(1))), "scores returned torch.int64"),
    (Selector("x", part(select_memory=hookimpl(first))), "a quota of at most what there is is filled"),
    (
        Selector("x", part(select_memory=hookimpl(look))),
        "the model is left as it was (backbone.stem.1.running_mean is not)",
    ),
    (Rate("x", part(allocate_memory=hookimpl(lambda self, classes: dict.fromkeys(classes, 99)))), "within the budget"),
    (Rate("x", part(allocate_memory=hookimpl(lambda self, classes: dict.fromkeys(classes, 0.5)))), "a quota of float"),
    (Refiner("x", part(select_memory=wrapper(drop))), "a refiner selects nothing"),
    (Refiner("x", part(select_memory=hookimpl(first))), "of a refiner has to wrap the selector's"),
    (Codec("x", part(encode=lambda self, pixels: b"", **NONE)), "encode returned bytes; return a list of bytes"),
    (Codec("x", part(encode=lambda self, pixels: [b""] * len(pixels), **NONE)), "decode returned None; return torch"),
    (Observer("x", part(before_step=hookimpl(blind))), "an observer changes nothing"),
    (Observer("x", part(before_step=hookimpl(lambda self, step: step))), "before_step returned Step; a moment returns"),
]


@pytest.mark.filterwarnings("ignore:Part cannot be pickled")
@pytest.mark.parametrize(("record", "sentence"), BROKEN, ids=kind_of)
def test_a_broken_contract_is_told_in_its_own_words(record, sentence):
    with pytest.raises(AssertionError) as told:
        check(record)
    assert sentence in str(told.value)


def test_there_is_something_broken_of_every_kind():
    assert {record.kind for record, _ in BROKEN} == {kind.kind for kind in KINDS}


class PullOptions(ObjectiveOptions):
    scale: float = Field(1.0, gt=0, description="of logits")


class Scaled:
    """Cross-entropy of scaled logits."""

    seen: list[float] = []  # noqa: RUF012

    def __init__(self, options):
        self.scale = options.scale
        Scaled.seen.append(options.scale)

    def loss(self, logits, labels):
        return nn.functional.cross_entropy(self.scale * logits, labels)


def test_options_are_those_of_a_recipe():
    Scaled.seen.clear()
    check(Objective("scaled", Scaled, PullOptions), scale=2.0)
    assert set(Scaled.seen) == {2.0}
    with pytest.raises(ValidationError, match="greater than 0"):
        check(Objective("scaled", Scaled, PullOptions), scale=0.0)
    with pytest.raises(ValidationError, match="not permitted"):
        check(Objective("scaled", Scaled, PullOptions), size=0.0)


def test_an_option_can_have_any_name():
    class Odd(Options):
        given: bool = Field(True, description="on or off")
        record: bool = Field(True, description="on or off")

    seen = set()
    remembering = part(
        __init__=lambda self, options: seen.add((options.given, options.record)),
        after_update=hookimpl(lambda self: None),
    )
    check(Penalty("x", remembering, Odd), {"reaches_model": False}, given=False)
    assert seen == {(False, True)}


def test_what_is_undescribed_is_refused():
    class Bare(Options):
        weight: float = 1.0

    with pytest.raises(AssertionError, match="option weight of x is described"):
        check(Penalty("x", part(after_update=hookimpl(lambda self: None)), Bare))


def test_what_an_examination_has_to_know_stands_in_a_dict():
    pulling = Penalty("x", part(needs="old", compute_penalty=hookimpl(double_terms)))
    check(pulling, {"stationary": False})
    with pytest.raises(TypeError, match="statoinary"):
        check(pulling, {"statoinary": False})


def test_an_observer_is_examined_with_its_options():
    class Loud(Options):
        loud: bool = Field(False, description="says something")

    said = []

    class Saying(Part):
        """Says whether it is loud."""

        @hookimpl
        def after_run(self):
            said.append(self.options.loud)

    check(Observer("saying", Saying, Loud), loud=True)
    assert said == [True]


# tiny runs


def test_components_stand_beside_what_is_installed_and_in_plug_in_files(tmp_path):
    penalty_file(tmp_path, '@hookimpl\ndef compute_penalty(self, new):\n    return {"t": new.logits.mean()}', "()")
    seen = part(after_step=hookimpl(lambda self, step: None))
    recipe = {"plugins": ["probe.py"], "penalties": [{"use": "probe"}, {"use": "L_D"}], "observers": [{"use": "seen"}]}
    run = tiny_run(recipe, tmp_path, components=[Observer("seen", seen)])
    assert set(run.terms[2]) == {"bce", "t", "L_D"}
    assert run.results.providers["seen"] == "test"
    assert run.path == tmp_path / "run"


def test_a_name_that_is_installed_too_needs_its_provider():
    mine = Objective("bce", Scaled, PullOptions)
    with pytest.raises(UserError, match="use = 'lwmfw/bce' or 'test/bce'"):
        tiny_run(components=[mine])
    assert tiny_run({"objective": {"use": "test/bce"}}, components=[mine]).results.complete


def test_a_folder_that_is_not_named_lasts_as_long_as_what_is_returned():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = tiny_run()
        path = run.path
        assert (path / "DONE").exists()
        del run
        gc.collect()
    assert not path.parent.exists()


def test_a_folder_that_is_not_named_is_gone_after_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError):
        tiny_run({"penalties": [{"use": "nothing"}]})
    assert list(tmp_path.iterdir()) == []
